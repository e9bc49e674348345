"""Proximal policy optimisation of a language model: the algorithm, then its formulas.

A row is a response, a column one of its tokens: an action. Every (B, R) tensor is 0 at PAD. Policy
and reference are modules with the right call, score is anything with it. Easy to mix up:

    scores    (B,)    of whole responses, from the reward model
    paid      (B,)    what PPO gives for a response: its score, or a fixed number if it was cut off
    rewards   (B, R)  of the tokens: each pays for its KL, and the last one gets what was paid
"""

from dataclasses import dataclass

import torch

from minippo.memory import Rollout, in_microbatches, microbatches
from minippo.run.flags import option  # a field is also a flag: the shelf's only import from below it
from minippo.tokens import PAD, last, masked_mean, same_shape, totals
from minippo.training import check_finite, clip_gradients


@dataclass
class PPOConfig:
    response_length: int = option(24, "tokens a response may have, the end token included", low=1)
    kl_coef: float = option(0.2, "beta: the score that a nat of KL costs; 0.02 to 0.5", low=0, high=1000)
    gamma: float = option(1.0, "discount per token; 1 for texts", low=0, high=1)
    lam: float = option(0.95, "lambda of GAE: 0 trusts the critic, 1 noisy returns; 0.6 to 1", low=0, high=1)
    clip: float = option(0.2, "epsilon: how far new / old may usefully move from 1; 0.1 to 0.3", low=0.001)
    value_clip: float = option(0.2, "how far a value may usefully move in an update; 0.1 to 0.5", low=0.001)
    value_coef: float = option(0.1, "c1: weight of the value loss; 0.5 in games", low=0)
    entropy_coef: float = option(0.0, "c2: weight of the entropy bonus; 0 to 0.01", low=0)
    epochs: int = option(2, "passes over each rollout; 1 to 4", low=1)
    minibatch_size: int = option(64, "responses per optimizer step", low=1)
    microbatch_size: int = option(0, "responses computed at once: same gradient; 0: some 512 tokens", low=0)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm; 0 = off", low=0)
    whiten_rewards: bool = option(False, "scale the rewards to deviation 1, keeping their mean")
    missing_end_score: float = option(-1.0, "paid to a cut-off response, not its score; 0 = off", high=0)
    early_stop_kl: float = option(0.0, "end an update when KL per token passes 1.5 times it; 0 = off", low=0)
    max_ratio: float = option(10.0, "skip a minibatch whose mean ratio passes this; 0 = off", low=0)


@torch.no_grad()
def collect(policy, reference, score, query, config, generator=None):
    """Let the policy answer queries (B, Q), and find out how good every token of its answers was.

    policy, reference   (query, response) -> logprobs, values, entropy, each (B, R); the policy has
                        generate(query, length, generator) -> response, and `end`, the end token's id
    score               (query, response) -> (B,), or (B, R) of tokens; mean 0 and deviation 1 or so
    Returns             a Rollout; a dict of statistics. NonFiniteError if one of these gives NaN
    """
    # 1. Sample from the very distribution that is trained: no top-k, nothing greedy.
    response = policy.generate(query, config.response_length, generator)
    mask, ended = response != PAD, (response == policy.end).any(1)
    # 2. Judge. A second forward pass gives the old log-probs, as the update gets the new ones: so the first
    #    ratio is 1, unless two passes differ (dropout, padding). It shows no fault of sampling (its cache).
    logprobs, values, entropy = in_microbatches(policy, query, response, config.microbatch_size)
    reference_logprobs = in_microbatches(reference, query, response, config.microbatch_size)[0]
    scores = torch.as_tensor(score(query, response), dtype=logprobs.dtype, device=query.device)
    # 3. Pay every token for its KL, and the last one for the whole response (or each for its own part).
    paid, rewards = pay(scores, ended, logprobs, reference_logprobs, mask, config)
    # 4. Advantages: what came, compared with what the critic expected.
    advantages, returns = gae(rewards, values, config.gamma, config.lam)
    rollout = Rollout(query, response, mask, logprobs, reference_logprobs, values, rewards,
                      whiten(advantages, mask), returns)
    check_finite("rollout: ", scores=scores, **vars(rollout))
    return rollout, rollout.describe(scores, paid, entropy, ended) | {"objective/kl_coef": config.kl_coef}


def pay(scores, ended, logprobs, reference_logprobs, mask, config):
    """What each response (B,) and each token (B, R) is paid; scores (B,), or (B, R): else ValueError.

    A reward model has never seen half a text, so its score of one means nothing: a response that was
    cut off is paid a fixed number. KL is in the reward, not in the loss: so it reaches, through GAE, also
    the tokens before it that led there, and the critic learns to expect it."""
    per_token, fixed = scores.dim() == 2, config.missing_end_score
    same_shape(scores=scores, responses=mask if per_token else ended)
    ended, place = (ended[:, None], last(mask)) if per_token else (ended, 1)
    paid = torch.where(ended, scores, fixed * place) if fixed else scores
    rewards = penalized_rewards(paid, logprobs, reference_logprobs, mask, config.kl_coef)
    return totals(paid, mask), whiten(rewards, mask, shift_mean=False) if config.whiten_rewards else rewards


def update(policy, optimizer, memory, config, generator=None):
    """Improve policy and critic on the stored episodes: epochs x minibatches.

    Returns   a dict of statistics, means over the minibatches (gradient norm of a skipped one: 0)
    Raises    NonFiniteError before the step that a loss or gradient would spoil
    Source    Schulman et al. 2017, algorithm 1 (arXiv:1707.06347)
    """
    steps = []
    for _ in range(config.epochs):
        for minibatch in memory.minibatches(config.minibatch_size, generator):
            stats, where = {}, f"minibatch {len(steps)} of the update: "
            # 1. zero: backward adds to what is there, and that is the last minibatch's
            optimizer.zero_grad()
            # 2. loss: in parts that fit into memory and add up to the minibatch's; fills stats
            for loss in losses(policy, minibatch, config, stats):
                # 3. backward: how each weight changes it; the parts' gradients add up, too
                loss.backward()
            # 4. clip: one unlucky minibatch must not throw the policy far from where it sampled
            limit_gradients(policy, stats, config, where)
            # 5. step: from here on the policy is another one than sampled, and ratios leave 1
            optimizer.step()
            steps.append(stats)
            if stats["ppo/early_stops"]:
                return summary(steps)
    return summary(steps)


def losses(policy, minibatch, config, stats):
    """Yield the loss of a minibatch in parts that add up to it; their statistics go into `stats`.

    It is a mean over all tokens of the minibatch: a part, or a long response, weighs by its tokens."""
    tokens = max(1, minibatch.mask.sum().item())
    for rows in microbatches(minibatch.mask, config.microbatch_size):
        part = minibatch[rows]
        share = part.mask.sum().item() / tokens
        loss, seen = ppo_loss(policy, part, config)
        yield share * loss   # backward first: reading the statistics would make a GPU wait
        for name, x in zip(seen, torch.stack([*seen.values()]).tolist()):
            stats[name] = stats.get(name, 0.0) + share * x


def ppo_loss(policy, batch, config):
    """Policy loss + c1 value loss - c2 entropy on a Rollout, and statistics of it (0-d tensors)."""
    old, mask = batch.logprobs, batch.mask
    logprobs, values, entropy = policy(batch.query, batch.response)
    loss_policy, clip_fraction = policy_loss(logprobs, old, batch.advantages, mask, config.clip)
    loss_value = value_loss(values, batch.values, batch.returns, mask, config.value_clip)
    mean_entropy = masked_mean(entropy, mask)
    loss = loss_policy + config.value_coef * loss_value
    if config.entropy_coef:   # at 0 no gradient through it: a quarter of an update's time
        loss = loss - config.entropy_coef * mean_entropy
    log_ratio = (logprobs - old).detach()
    return loss, {
        "ppo/loss/policy": loss_policy.detach(), "ppo/loss/value": loss_value.detach(),
        "ppo/loss/total": loss.detach(), "ppo/policy/entropy": mean_entropy.detach(),
        "ppo/policy/approxkl": masked_mean(log_ratio.square(), mask) / 2,
        "ppo/policy/ratio": masked_mean(log_ratio.exp(), mask), "ppo/policy/clipfrac": clip_fraction}


def limit_gradients(policy, stats, config, where):
    """Clip the gradients, or drop them (max_ratio, early_stop_kl) if the policy is too far from where it
    sampled: an optimizer passes over parameters without a gradient, so step 5 changes nothing."""
    skipped = 0 < config.max_ratio < stats["ppo/policy/ratio"]
    stopped = 0 < 1.5 * config.early_stop_kl < stats["ppo/policy/approxkl"]
    norm = 0.0 if skipped else clip_gradients(policy, config.max_grad_norm, where, **stats)
    if skipped or stopped:
        policy.zero_grad()
    stats |= {"ppo/grad_norm": norm, "ppo/early_stops": float(stopped), "ppo/skipped": float(skipped)}


def summary(steps):
    """Means over the steps' statistics; sums of the events that are counted."""
    counted = ("ppo/early_stops", "ppo/skipped")
    return {name: sum(s[name] for s in steps) / (1 if name in counted else len(steps)) for name in steps[0]}


# ------------- the formulas, in order of use; ValueError if shapes differ, as broadcasting would hide it

def penalized_rewards(score, logprobs, reference_logprobs, mask, kl_coef):
    """Each token pays for leaving the reference; the last one also gets the score.

    r_t = -beta (log pi - log pi_ref), plus the score at the last real token
    score     (B,) per response, or (B, R) per token; log-probs (B, R) nats
    mask      (B, R), True = a real token, on the left
    Returns   (B, R), units of the score; a row sums to score - beta KL, one without tokens to 0
    Source    Ziegler et al. 2019, eq. 2 (arXiv:1909.08593)
    """
    if score.dim() == 1:
        same_shape(score=score, responses=mask.any(1))
        score = score[:, None] * last(mask)
    same_shape(score=score, logprobs=logprobs, reference_logprobs=reference_logprobs, mask=mask)
    rewards = score - kl_coef * (logprobs - reference_logprobs)
    return rewards.masked_fill(~mask, 0)


def gae(rewards, values, gamma, lam):
    """How much better each token was than the critic expected.

    delta_t = r_t + gamma V_{t+1} - V_t;   A_t = delta_t + gamma lam A_{t+1};   returns = A + V
    rewards, values   (B, R), units of the score; 0 at PAD, so V is 0 after the last token. That holds for
                      a response that was cut off, too: it has been paid in full, nothing more will come
    gamma, lam        discount and GAE decay per token, each in [0, 1]
    Returns           advantages, returns: (B, R), same units; not whitened
    Source            Schulman et al. 2016, eq. 16 (arXiv:1506.02438)
    """
    same_shape(rewards=rewards, values=values)
    advantages = torch.zeros_like(rewards)
    advantage = next_value = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * advantage
        advantages[:, t] = advantage
        next_value = values[:, t]
    return advantages, advantages + values


def whiten(x, mask, shift_mean=True):
    """x (B, R) with variance 1 over real tokens, and mean 0, or its own mean without `shift_mean`.

    So steps do not depend on the score's scale. (B, R), 0 at PAD; population variance, eps 1e-8
    Source    lm-human-preferences, the code of Ziegler et al. 2019
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean).square(), mask)
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0)


def policy_loss(logprobs, old_logprobs, advantages, mask, clip):
    """The clipped surrogate: no gain from moving a probability further than `clip` where it pays.

    rho = exp(log pi - log pi_old);   loss = mean max(-A rho, -A clip(rho, 1 - eps, 1 + eps))
    all (B, R); old_ = at sampling time. At rho = 1 the gradient is -A grad log pi: A > 0, a likelier token
    Returns   loss, clip_fraction (share of tokens whose clipped branch is the larger): scalars
    Source    Schulman et al. 2017, eq. 7 (arXiv:1707.06347)
    """
    same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    ratio = (logprobs - old_logprobs).exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    clip_fraction = masked_mean((clipped > unclipped).float(), mask)
    return masked_mean(torch.max(unclipped, clipped), mask), clip_fraction


def value_loss(values, old_values, returns, mask, clip):
    """Squared error of the critic, without gain from moving further than `clip` from the old value.

    mean max((V - returns)^2, (clip(V, V_old - eps, V_old + eps) - returns)^2) / 2
    all (B, R), units of the score; the result is a scalar
    Source    lm-human-preferences, the code of Ziegler et al. 2019
    """
    same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    clipped = torch.max(torch.min(values, old_values + clip), old_values - clip)
    worse = torch.max((values - returns).square(), (clipped - returns).square())
    return masked_mean(worse, mask) / 2


@dataclass
class AdaptiveKL:
    """A KL coefficient that rises while the KL is above its target, and falls while it is below.

    e = clip(KL / target - 1, -0.2, 0.2);   beta <- beta (1 + e n / horizon)
    target    nats per response, 0 = off; horizon: episodes in which beta moves by up to about a fifth
    Source    Ziegler et al. 2019, section 2.2, and its code for n / horizon
    """
    kl_coef: float
    target: float
    horizon: float

    def update(self, kl, episodes):
        """Take in the mean KL of so many episodes; returns the new coefficient."""
        error = min(max(kl / self.target - 1, -0.2), 0.2) if self.target else 0
        self.kl_coef *= 1 + error * episodes / self.horizon
        return self.kl_coef


def kl_estimates(logprobs, reference_logprobs):
    """Three estimates of KL(pi || pi_ref) per token sampled from pi, with x = pi_ref / pi.

    k1 = -log x,   k2 = (log x)^2 / 2,   k3 = (x - 1) - log x;   k1 and k3 are unbiased, k3 is never negative
    Returns   k1 (what PPO charges a token), k2, k3, of the inputs' shape, nats
    Source    Schulman, "Approximating KL Divergence", 2020
    """
    same_shape(logprobs=logprobs, reference_logprobs=reference_logprobs)
    log_x = reference_logprobs - logprobs
    return -log_x, log_x.square() / 2, log_x.expm1() - log_x
