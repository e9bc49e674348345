"""Findings of stage 3: what came of it, the gravest first."""

import math

from minippo.tools.findings.finding import MANY, Finding, mean


def all_ends_at_once(seen):
    length, before = seen.late("tokens/responses_len_mean"), seen.start("tokens/responses_len_mean")
    if length <= 2 < before / 2 and seen.late("tokens/ended") > 0.5:
        return f"responses have {length:.1f} tokens in the last quarter of the run, {before:.1f} at the start"


def entropy_collapse(seen):
    """A fifth of the nats: where it chose among 20 tokens it now chooses among 20^(1/5) = 1.8.
    A policy that cannot choose learns from no advantage: told before an objective that falls."""
    entropy, before = seen.late("ppo/policy/entropy"), seen.start("ppo/policy/entropy")
    if entropy < before / 5:
        return f"the entropy of a token falls from {before:.2f} to {entropy:.2g} nats"


def objective_falls(seen):
    """PPO raises score - beta KL. A quarter of a deviation is more than noise of a healthy run leaves."""
    change, error = seen.change("objective/rlhf_reward")
    if seen.many and change + 3 * error < 0 and change < -0.25 * seen.start("objective/scores_std"):
        return f"score - beta KL, which PPO is to raise, falls by {-change:.2f} ± {error:.2f} over the run"


def nothing_ends(seen):
    """Below a tenth, the line that stage 3's note draws, too, nearly all are paid the same."""
    ended, length = seen.late("tokens/ended"), seen.late("tokens/responses_len_mean")
    if ended < 0.1:
        return (f"{ended:.0%} of the responses end by themselves in the last quarter of the run "
                f"({seen.start('tokens/ended'):.0%} at the start); they have {length:.1f} tokens")


def kl_runs_away(seen):
    """A policy that always gives one typical text of the reference has as much KL as that has entropy.
    Above it, what the policy writes is less likely under the reference than what that writes itself."""
    length, limit = seen.late("tokens/responses_len_mean"), seen.start("ppo/policy/entropy")
    if (kl := seen.late("objective/kl")) > limit * length > 0:
        return (f"KL is {kl / length:.2f} nats a token in the last quarter of the run, "
                f"{kl:.1f} a response; a policy that only ever wrote one typical text "
                f"would have {limit:.2f} a token")


def rise_of_score(seen):
    """By how much the score rose (NaN if that is unknown), and the figures before and after."""
    before, after = (seen.figures.get(name, {}) for name in ("reference", "policy"))
    return after.get("score", math.nan) - before.get("score", math.nan), before, after


def reward_hacked(seen):
    """Over 512 responses a share has a standard error of up to 0.022, a difference of two 0.031; 0.06 is
    twice that. The judge is believed from 0.6 on. The target may be low scores: what counts is whether the
    judge goes the same way as the score."""
    rise, before, after = rise_of_score(seen)
    judged = [figures.get("judged_positive", math.nan) for figures in (before, after)]
    agreed = math.copysign(1, rise) * (judged[1] - judged[0])
    room = judged[0] if rise < 0 else 1 - judged[0]   # where all is judged positive, none can be more so
    if abs(rise) > 0.5 and seen.figures.get("judge_accuracy", 0) > 0.6 and room > 0.12 and agreed < 0.06:
        return (f"the score goes from {before['score']:+.2f} to {after['score']:+.2f}, and the share that an "
                f"independent judge calls positive from {judged[0]:.0%} to {judged[1]:.0%}")


def texts_all_alike(seen):
    """Half as many different pairs of words: each text says what another one has said."""
    _, before, after = rise_of_score(seen)
    if after.get("distinct_2", math.nan) < before.get("distinct_2", math.nan) / 2:
        return (f"{after['distinct_2']:.0%} of the pairs of words are different ones, "
                f"{before['distinct_2']:.0%} before")


def clipped_everywhere(seen):
    """What is clipped has no gradient: from a half on, most of an update's work is for nothing."""
    if (share := seen.early("ppo/policy/clipfrac")) > 0.5:
        return f"{share:.0%} of the tokens are clipped in the first quarter of the run"


def never_clipped(seen):
    """approxkl 0.02 is a log-ratio of 0.2: a third of the tokens, if it is normal, is farther than the
    usual clips (0.1 to 0.3) let count, half of those on the side that is clipped."""
    clipped, k2 = seen.column("ppo/policy/clipfrac"), seen.early("ppo/policy/approxkl")
    if max(clipped) == 0 and k2 > 0.02:
        return f"no token is ever clipped, though ratios scatter (approxkl {k2:.2g} in the first quarter)"


def dead_critic(seen):
    """Explained variance 0 is a critic that says the same for all texts; below 0, one that misleads."""
    explained = mean(seen.column("ppo/val/var_explained", seen.part(0.5, 1)))
    if seen.many and explained <= 0:
        return f"the critic explains {explained:.1%} of the returns' variance in the second half of the run"


def cut_off(seen):
    """Where cut-off responses are paid a fixed number, half of the rollout says nothing about texts."""
    ended, paid = seen.late("tokens/ended"), seen.late("objective/paid")
    if 0.1 <= ended < 0.5 and paid != seen.late("objective/scores"):
        return f"{1 - ended:.0%} of the responses are cut off in the last quarter of the run"


def nothing_learned(seen):
    """At the end, a rise below twice its standard error, or below a tenth of a deviation, is none."""
    change, error = seen.change("objective/scores")
    enough = max(2 * error, 0.1 * seen.start("objective/scores_std"))
    if seen.finished and len(seen.rows) >= 2 * MANY and change < enough:
        return f"the mean score changes by {change:+.2f} ± {error:.2f} over {len(seen.rows)} iterations"


SYMPTOMS = [
    Finding("all ends at once", all_ends_at_once,
            "the score is higher for short or empty texts, or KL is so dear that fewer tokens pay: the "
            "reward model never saw such texts",
            "train the reward model anew, with short texts among its pairs; a lower --kl-coef if KL is "
            "high"),
    Finding("entropy collapse", entropy_collapse,
            "the policy always gives the same tokens: steps too large, KL too cheap, or entropy made a "
            "cost",
            "lower --lr; raise --kl-coef; an --entropy-coef of 0.01"),
    Finding("objective falls", objective_falls,
            "the update goes against the advantages (a sign), or they belong to other tokens than those "
            "they are multiplied with",
            "look at the signs in policy_loss and gae (minippo/ppo.py); if the code is unchanged, lower "
            "--lr"),
    Finding("nothing ends", nothing_ends,
            "the responses have no room to end, or the score rises with length; all that are cut off are "
            "paid the same, --missing-end-score, so nothing tells them apart",
            "raise --response-length; keep --missing-end-score below the mean score"),
    Finding("KL runs away", kl_runs_away,
            "KL costs too little against what the score pays, or the steps are too large",
            "raise --kl-coef, or give --kl-target; lower --lr"),
    Finding("reward hacked", reward_hacked,
            "the policy found texts that the reward model, or --score, likes and people would not",
            "raise --kl-coef; fewer --iterations; a better reward model (more --passes) or --score"),
    Finding("texts all alike", texts_all_alike,
            "the policy has settled on a few texts that score high",
            "raise --kl-coef; fewer --iterations"),
    Finding("clipped everywhere", clipped_everywhere,
            "the clip is so narrow, or an update so long, that most tokens are past it",
            "raise --clip (0.1 to 0.3 is usual); fewer --epochs; lower --lr"),
    Finding("never clipped", never_clipped,
            "the clip is so wide that it never holds anything back",
            "lower --clip (0.1 to 0.3 is usual)"),
    Finding("cut off", cut_off,
            "the responses have too little room to end; those that do not are all paid the same, "
            "--missing-end-score",
            "raise --response-length, or give --missing-end-score 0"),
    Finding("nothing learned", nothing_learned,
            "KL is so dear, the steps so small, or the scores so noisy that the score does not rise",
            "lower --kl-coef if KL stays near 0, raise --lr, raise --iterations"),
    Finding("dead critic", dead_critic,
            "the critic learns nothing, or too slowly for a score that moves: advantages are then as "
            "noisy as the scores",
            "raise --value-coef, then --value-clip; --separate-critic begins it as the reward model"),
]
