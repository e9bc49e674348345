"""Findings of stage 3: what makes the numbers themselves wrong, then what spoils learning from its start."""

import math

from minippo.tools.findings.finding import MANY, Finding, error_of_mean, mean

# ---------------- the numbers themselves are wrong

def kl_at_the_start(seen):
    """Policy and reference are one model then: 0 up to rounding, some 1e-6 nats a token in float32."""
    kl = seen.start("objective/kl")
    if seen.rows[0]["iteration"] == 0 and abs(kl) > 0.01:
        return f"KL is {kl:.3f} nats in iteration 0, before anything was learned"


def negative_kl(seen):
    """A mean of log pi - log pi_ref over samples of pi is negative by chance alone: 3 standard errors."""
    kl = seen.column("objective/kl", seen.part(0.5, 1))
    if seen.many and mean(kl) < -0.01 and mean(kl) + 3 * error_of_mean(kl) < 0:
        return f"KL is {mean(kl):.3f} nats on average over the second half of the run"


def rewards_that_do_not_add_up(seen):
    """A response's rewards sum to paid - beta KL; by another sign or none they sum to something else."""
    keys = "objective/rlhf_reward", "objective/paid", "objective/kl", "objective/kl_coef"
    rows = [found for row in seen.rows if None not in (found := [row.get(key) for key in keys])]
    rows = [(total, paid, beta * kl) for total, paid, kl, beta in rows if abs(beta * kl) > 0.05]
    for factor, what in ((1, "the price of KL is added, not subtracted"), (0, "KL costs nothing")):
        if rows and all(abs(paid + factor * x - total) < 0.01 * abs(x) for total, paid, x in rows):
            total, paid, price = rows[-1]
            return (f"{what}: rewards of a response sum to {total:.3f}, where {paid:.3f} was paid and "
                    f"KL costs {price:.3f}, in the last iteration and all others")


def pads_counted(seen):
    """By chance a mean over n different lengths is whole once in n; ten times in a row it is not."""
    lengths = seen.column("tokens/responses_len_mean")
    if (seen.many and seen.late("tokens/ended") > 0.5 and mean(lengths) > 3
            and all(x == int(x) for x in lengths)):
        return (f"the mean length is a whole number in each of {len(lengths)} iterations, {lengths[-1]:.0f} "
                f"in the last, although {seen.late('tokens/ended'):.0%} of the responses end by themselves")


def reference_moves(seen):
    """What moves a token's log-probability by x, k2 = x^2 / 2, leaves a KL of that size to a fixed model."""
    moved, kl = mean(seen.column("ppo/policy/approxkl")), seen.column("objective/kl")
    if seen.many and moved > 1e-5 and (most := max(map(abs, kl))) < 0.1 * moved:
        return f"KL stays at {most:.1g}, while updates move the policy (approxkl {moved:.2g} on average)"


def floor_of_ratio(seen):
    """k2 of the last update, if it is no smaller than the learning rate's fall to 0 explains, else None.

    The rate of the last of N updates is 1/N of the first, so k2, a square, is some 1/N^2 of it: at most
    1/100. A tenth leaves room for noise; below 1e-3 (ratios within 4 %) there is nothing to explain.
    """
    k2, ended = seen.column("ppo/policy/approxkl"), seen.finished and seen.decayed
    if ended and seen.many and k2[-1] > max(1e-3, 0.1 * seen.early("ppo/policy/approxkl")):
        return k2[-1]


def ratio_to_the_reference(seen):
    """New / old averages to 1 over samples of old, whatever new is; policy / reference, over samples of the
    policy, to 1 + chi^2. A few large ratios make a mean of 1, so most rows are below it: that half of a run's
    rows (five or more) are all above it happens once in 32 runs at most. Such a mean has no standard error
    to trust."""
    ratios = seen.column("ppo/policy/ratio", seen.part(0.5, 1))
    if (floor := floor_of_ratio(seen)) and min(ratios) > 1:
        return (f"ratios average {mean(ratios):.3f} in the second half, above 1 in each iteration, and still "
                f"scatter (approxkl {floor:.2g}) in the last update, whose steps are next to nothing")


def ratio_not_1(seen):
    if (floor := floor_of_ratio(seen)) and not ratio_to_the_reference(seen):
        return (f"approxkl is {floor:.2g} in the last update, whose steps are next to nothing "
                f"(it was {seen.early('ppo/policy/approxkl'):.2g} early in the run)")


# ---------------- the start is wrong

def constant_score(seen):
    """Scores have deviation 1 by construction; a hundredth of it is no difference between texts."""
    spread = seen.start("objective/scores_std")
    if spread < 0.01:
        return f"the scores of the first rollout have a standard deviation of {spread:.2g}"


def score_out_of_scale(seen):
    """Beta buys KL in units of the score: at the optimum KL grows with its square, 3 times is 9 times."""
    spread, center = seen.start("objective/scores_std"), seen.start("objective/scores")
    if spread > 3 or 0.01 <= spread < 1 / 3 or abs(center) > 3:
        return (f"the scores of the first rollout have mean {center:.2f} and deviation {spread:.2f}, "
                "where 0 and 1 are due")


def steps_too_large(seen):
    """approxkl is x^2 / 2 of a log-ratio x: above 1/2 an update moves probabilities e-fold, typically."""
    k2 = seen.early("ppo/policy/approxkl")
    if k2 > 0.5:
        return (f"approxkl is {k2:.2g} in the first quarter of the run: an update changes a token's "
                f"probability by a factor of e^{(2 * k2) ** 0.5:.1f}")


def nothing_moves(seen):
    """Below 1e-6 a probability changes by 0.14 % in an update: not twofold in 400 that all agree."""
    k2 = seen.early("ppo/policy/approxkl")
    if k2 < 1e-6:
        return (f"approxkl is {k2:.1g}: an update changes a token's probability by {(2 * k2) ** 0.5:.1g} "
                "of what it is")


def kl_outweighs_the_score(seen):
    """KL begins at 0, and an optimum spends on it half of what the score rises by: for a normal score of
    deviation s that rise is s^2 / beta, and 10 s are out of reach. So early in a run beta is to blame."""
    prices = [beta * kl for beta, kl in zip(*(seen.column(f"objective/{key}", seen.part(0, 0.25))
                                              for key in ("kl_coef", "kl")))]
    if mean(prices) > 10 * seen.start("objective/scores_std"):
        return (f"KL costs {mean(prices):.1f} a response in the first quarter of the run (beta KL), where "
                f"scores have a deviation of {seen.start('objective/scores_std'):.2f}")


def batch_too_small(seen):
    """The mean of n scores of deviation s scatters by s / sqrt(n): by a third of it and more where n < 8.

    Learning moves the mean, too. a - 2 b + c of three means in a row loses what it moves evenly, and has the
    variance (1 + 4 + 1) s^2 / n, 6/n where a - b has 2/n. Over the root of that without n it is normal with
    deviation 1/sqrt(n), and its size sqrt(2 / (pi n)) on average (its square would make more of one leap).
    The error of that average over k of them is 1/sqrt(k) of it: sqrt(pi/2 - 1) = 0.76 if none had to do with
    another; neighbours correlate by -2/3, their sizes by 0.41, which makes 0.76 sqrt(1 + 2 0.41) = 1.02.
    Eight responses could show two such errors more by chance.
    """
    bends = []
    for rows in zip(seen.rows, seen.rows[1:], seen.rows[2:]):
        a, b, c = (row.get("objective/scores") for row in rows)
        s, t, u = (row.get("objective/scores_std") for row in rows)
        if None not in (a, b, c, s, t, u) and (spread := math.hypot(s, 2 * t, u)):
            bends.append(abs(a - 2 * b + c) / spread)
    limit = 8 ** -0.5 * (1 + 2 / max(len(bends), 1) ** 0.5)
    if len(bends) >= MANY - 2 and (scatter := mean(bends) * (math.pi / 2) ** 0.5) > limit:
        return (f"the mean score of a rollout scatters by {scatter:.2f} of a single score's deviation: as if "
                f"there were {scatter ** -2:.1f} responses; with 8 it could be {limit:.2f} by chance")


CAUSES = [
    Finding("KL not 0 at the start", kl_at_the_start,
            "reference and policy are not the same model at the same --temperature, or one of them runs "
            "with dropout",
            "take the reference from the policy before the first step, in eval mode (policy.reference())"),
    Finding("negative KL", negative_kl,
            "the responses were not sampled from the policy whose log-probabilities are taken (stale "
            "weights, another temperature, top-k), or the difference is taken the other way round",
            "sample by policy.generate; KL is log pi - log pi_ref, summed over the response"),
    Finding("rewards do not add up", rewards_that_do_not_add_up,
            "the reward of a token is not what was paid minus beta (log pi - log pi_ref)",
            "look at penalized_rewards in minippo/ppo.py; no flag helps"),
    Finding("pads are counted", pads_counted,
            "the mask is True at PAD, so rewards, advantages and losses go over columns that are no "
            "tokens",
            "mask = response != PAD, and nothing else; no flag helps"),
    Finding("reference moves along", reference_moves,
            "the reference is the policy, or shares its weights: leaving it costs nothing",
            "freeze a copy (minippo/policy.py, frozen); no flag helps"),
    Finding("ratio to the reference", ratio_to_the_reference,
            "the ratio of the loss is taken to the reference instead of to the policy that sampled, so "
            "clipping holds the policy at the reference",
            "old log-probabilities are those of collect: rollout.logprobs; no flag helps"),
    Finding("ratio does not begin at 1", ratio_not_1,
            "the update computes other log-probabilities than collect did, with the same weights: "
            "dropout, another temperature, another padding",
            "policy.eval() in the update, too; the same forward pass in both; no flag helps"),
    Finding("constant score", constant_score,
            "whatever gives the scores does not see the text, or was never normalized",
            "train the reward model anew, and give its folder by --reward"),
    Finding("score out of scale", score_out_of_scale,
            "the reward model was normalized on other responses (another --model, another --temperature), "
            "or not at all; --kl-coef counts in its units",
            "train_reward.py on the same --model; divide a --score of yours by its deviation"),
    Finding("steps too large", steps_too_large,
            "the learning rate, or the number of steps on a rollout, is too large: what one rollout says "
            "is believed too much",
            "lower --lr, then --epochs; --early-stop-kl ends an update in time"),
    Finding("nothing moves", nothing_moves,
            "the steps are too small for the policy to change within the run",
            "raise --lr"),
    Finding("KL outweighs the score", kl_outweighs_the_score,
            "the price of KL is so high that its noise is all that the advantages show, and its returns "
            "so large that the critic's gradient fills the norm that gradients are clipped to",
            "lower --kl-coef (0.02 to 0.5 is usual)"),
    Finding("batch too small", batch_too_small,
            "so few responses say next to nothing about which of them was better, and the update follows "
            "their noise",
            "raise --rollout-size, and --minibatch-size with it"),
]
