"""Proximal policy optimisation of a language model: the algorithm, then its formulas.

A row is a response, a column one of its tokens: an action. Every (B, R) tensor is 0 (mask: False)
at PAD. Policy, reference and score come in as anything with the right call.
"""

from dataclasses import dataclass

import torch

from minippo.config import option
from minippo.finite import check_finite, clip_gradients
from minippo.memory import Rollout
from minippo.tokens import PAD


@dataclass
class PPOConfig:
    response_length: int = option(24, "tokens a response may have, the end token included", low=1)
    kl_coef: float = option(0.2, "beta: price of one nat of KL from the reference, in standard "
                                  "deviations of the score; 0.02 to 0.5", low=0, high=1000)
    gamma: float = option(1.0, "discount per token; 1 for texts", low=0, high=1)
    lam: float = option(0.95, "of GAE: 0 trusts the critic, 1 the return; 0.9 to 1", low=0, high=1)
    clip: float = option(0.2, "how far a ratio may usefully move from 1; 0.1 to 0.3", low=0.001)
    value_clip: float = option(0.2, "how far a value may usefully move; 0.1 to 0.5", low=0.001)
    value_coef: float = option(0.1, "c1: weight of the value loss; 0.5 in games", low=0)
    entropy_coef: float = option(0.0, "c2: weight of the entropy bonus; 0 to 0.01", low=0)
    epochs: int = option(2, "passes over each rollout; 1 to 4", low=1)
    minibatch_size: int = option(64, "episodes per optimizer step", low=1)
    microbatch_size: int = option(32, "episodes computed at once: same gradient", low=1)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm; 0 = off", low=0)
    whiten_rewards: bool = option(False, "scale the rewards to deviation 1, keeping their mean")
    missing_end_penalty: float = option(1.0, "a response cut off scores minus this; 0 = off", low=0)
    target_kl: float = option(0.0, "end an update whose KL passes 1.5 times this; 0 = off", low=0)
    max_ratio: float = option(10.0, "skip a minibatch whose mean ratio passes this; 0 = off", low=0)


@torch.no_grad()
def collect(policy, reference, score, query, config, generator=None):
    """Let the policy respond, and judge every token of the responses.

    policy, reference   (query, response) -> logprobs, values, entropy, each (B, R); the policy has
                        generate(query, length, generator) -> response, and the end token's id `end`
    score               (query, response) -> (B,); kl_coef, value_clip and missing_end_penalty are
                        in its units, made for a mean of 0 and a deviation of 1
    query               (B, Q), PAD on the left
    Returns             a Rollout; a dict of statistics
    Raises              NonFiniteError; ValueError if the score has another shape
    """
    response = policy.generate(query, config.response_length, generator)
    mask = response != PAD
    logprobs, values, entropy = in_microbatches(policy, query, response, config)
    reference_logprobs = in_microbatches(reference, query, response, config)[0]
    scores = torch.as_tensor(score(query, response), dtype=logprobs.dtype, device=query.device)
    ended = (response == policy.end).any(1)
    if scores.shape != ended.shape:
        raise ValueError(f"score gave {tuple(scores.shape)} for {len(ended)} responses; "
                         "it must give one number each")
    check_finite("rollout: ", logprobs=logprobs, reference_logprobs=reference_logprobs,
                 values=values, scores=scores)

    paid = scores
    if config.missing_end_penalty:   # a score of half a text means nothing: none is given
        paid = scores.masked_fill(~ended, -config.missing_end_penalty)
    rewards = penalized_rewards(paid, logprobs, reference_logprobs, mask, config.kl_coef)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(rewards, values, config.gamma, config.lam)
    rollout = Rollout(query, response, mask, logprobs, reference_logprobs, values, rewards,
                      whiten(advantages, mask), returns)
    stats = describe(rollout, scores, entropy, ended)
    return rollout, stats | {"objective/kl_coef": config.kl_coef}


def in_microbatches(model, query, response, config):
    """The outputs of model(query, response), each (B, R), computed some rows at a time.

    Raises   ValueError if an output has another shape
    """
    outputs, mask = None, response != PAD
    for rows in microbatches(mask, config):
        longest = int(mask[rows[-1]].sum())
        parts = model(query[rows], response[rows, :longest])
        outputs = outputs or [part.new_zeros(response.shape) for part in parts]
        for output, part in zip(outputs, parts):
            same_shape(output=part, tokens=response[rows, :longest])
            output[rows, :longest] = part
    return outputs


def microbatches(mask, config):
    """Indices of the rows of a mask (B, R), shortest first, in parts: so there is less padding."""
    return mask.sum(1).argsort(stable=True).split(config.microbatch_size)


def describe(rollout, scores, entropy, ended):
    """What a rollout was like: a dict of numbers."""
    kl = (rollout.logprobs - rollout.reference_logprobs).sum(1)
    values, returns, mask = rollout.values, rollout.returns, rollout.mask
    return {
        "objective/scores": scores.mean().item(),
        "objective/scores_std": scores.std(correction=0).item(),
        "objective/kl": kl.mean().item(),
        "objective/entropy": entropy.sum(1).mean().item(),
        "objective/rlhf_reward": rollout.rewards.sum(1).mean().item(),
        "ppo/returns/mean": masked_mean(returns, mask).item(),
        "ppo/val/mean": masked_mean(values, mask).item(),
        "ppo/val/var_explained": explained_variance(values, returns, mask).item(),
        "tokens/responses_len_mean": mask.sum(1).float().mean().item(),
        "tokens/ended": ended.float().mean().item(),
    }


def update(policy, optimizer, memory, config, generator=None):
    """Improve policy and critic on the stored episodes: epochs x minibatches.

    policy      (query, response) -> logprobs, values, entropy; the one that collected
    optimizer   over the policy's parameters
    Returns     a dict of statistics, means over the minibatches (gradient norm of a skipped one: 0)
    Raises      NonFiniteError before the step that a loss or gradient would spoil
    Source      Schulman et al. 2017, algorithm 1 (arXiv:1707.06347)
    """
    steps = []
    for _ in range(config.epochs):
        for minibatch in memory.minibatches(config.minibatch_size, generator):
            optimizer.zero_grad()
            stats = accumulate_gradients(policy, minibatch, config)
            stopped = 0 < 1.5 * config.target_kl < stats["ppo/policy/approxkl"]
            skipped = 0 < config.max_ratio < stats["ppo/policy/ratio"]
            norm = 0.0
            if not skipped:
                where = f"minibatch {len(steps)} of the update: "
                check_finite(where, **stats)
                norm = clip_gradients(policy, config.max_grad_norm, where)
            steps.append(stats | {"ppo/grad_norm": norm, "ppo/early_stops": float(stopped),
                                  "ppo/skipped": float(skipped)})
            if stopped:
                return summary(steps)
            if not skipped:
                optimizer.step()
    return summary(steps)


def accumulate_gradients(policy, minibatch, config):
    """Add the gradient of the loss over a minibatch, in microbatches weighted by their tokens.

    Every loss is a mean over all tokens of the minibatch: long responses weigh more.
    """
    total = {}
    for rows in microbatches(minibatch.mask, config):
        part = minibatch[rows]
        weight = part.mask.sum().item() / max(1, minibatch.mask.sum().item())
        loss, stats = ppo_loss(policy, part, config)
        (weight * loss).backward()
        for name, value in stats.items():
            total[name] = total.get(name, 0.0) + weight * value.item()
    return total


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
        "ppo/loss/policy": loss_policy.detach(),
        "ppo/loss/value": loss_value.detach(),
        "ppo/loss/total": loss.detach(),
        "ppo/policy/entropy": mean_entropy.detach(),
        "ppo/policy/clipfrac": clip_fraction,
        "ppo/policy/approxkl": masked_mean(log_ratio.square(), mask) / 2,
        "ppo/policy/ratio": masked_mean(log_ratio.exp(), mask),
    }


def summary(steps):
    """Means over the steps' statistics; sums of the events that are counted."""
    counted = ("ppo/early_stops", "ppo/skipped")
    return {name: sum(s[name] for s in steps) / (1 if name in counted else len(steps))
            for name in steps[0]}


# ---------------------------------------------------------------- the formulas

def penalized_rewards(score, logprobs, reference_logprobs, mask, kl_coef):
    """Each token pays for leaving the reference; the last one also gets the score.

    r_t = -beta (log pi - log pi_ref), plus the score at the last real token

    score                         (B,) per response, or (B, R) per token
    logprobs, reference_logprobs  (B, R) nats
    mask                          (B, R), True = a real token, on the left
    Returns                       (B, R), units of the score; a row sums to score - beta KL,
                                  one without tokens to 0
    Raises                        ValueError if the shapes do not fit
    Source                        Ziegler et al. 2019, eq. 2 (arXiv:1909.08593)
    """
    same_shape(logprobs=logprobs, reference_logprobs=reference_logprobs, mask=mask)
    rewards = -kl_coef * (logprobs - reference_logprobs)
    if score.shape == rewards.shape:
        rewards = rewards + score
    elif score.shape == rewards.shape[:1]:
        last = mask & (mask.cumsum(1) == mask.sum(1, keepdim=True))
        rewards = rewards + last * score[:, None]
    else:
        raise ValueError(f"score {tuple(score.shape)} is neither (B,) nor (B, R) "
                         f"of {tuple(rewards.shape)}")
    return rewards.masked_fill(~mask, 0)


def gae(rewards, values, gamma, lam):
    """How much better each token was than the critic expected.

    delta_t = r_t + gamma V_{t+1} - V_t;   A_t = delta_t + gamma lam A_{t+1};   returns = A + V

    rewards, values  (B, R), 0 at PAD (so the value after the last token is 0); units of the score
    gamma, lam       discount and GAE decay per token, each in [0, 1]
    Returns          advantages, returns: (B, R), same units; not whitened
    Raises           ValueError if the shapes differ (broadcasting would hide it)
    Source           Schulman et al. 2016, eq. 16 (arXiv:1506.02438)
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


def masked_mean(x, mask):
    """Mean of x where the mask is True; both the same shape. 0-d; 0 if the mask is empty."""
    same_shape(x=x, mask=mask)
    return (x * mask).sum() / mask.sum().clamp(min=1)


def whiten(x, mask, shift_mean=True):
    """x with variance 1 over the real tokens, and mean 0, or the mean it had without `shift_mean`.

    x, mask  (B, R); population variance, eps 1e-8
    Returns  (B, R), 0 at PAD
    Source   lm-human-preferences, the code of Ziegler et al. 2019
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean).square(), mask)
    whitened = (x - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0)


def policy_loss(logprobs, old_logprobs, advantages, mask, clip):
    """The clipped surrogate: no gain from moving a probability further than `clip` where it pays.

    rho = exp(log pi - log pi_old);   loss = mean max(-A rho, -A clip(rho, 1 - eps, 1 + eps))

    all (B, R); old_ = at sampling time
    Returns  loss, clip_fraction (share of tokens whose clipped branch is the larger): scalars
    Raises   ValueError if the shapes differ
    Source   Schulman et al. 2017, eq. 7 (arXiv:1707.06347)
    """
    same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    ratio = (logprobs - old_logprobs).exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    clip_fraction = masked_mean((clipped > unclipped).float(), mask)
    return masked_mean(torch.max(unclipped, clipped), mask), clip_fraction


def value_loss(values, old_values, returns, mask, clip):
    """Squared error of the critic, without gain from moving further than `clip` from the old value.

    mean max((V - R)^2, (clip(V, V_old - eps, V_old + eps) - R)^2) / 2

    all (B, R), units of the score
    Returns  scalar
    Raises   ValueError if the shapes differ
    Source   lm-human-preferences, the code of Ziegler et al. 2019
    """
    same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    clipped = torch.max(torch.min(values, old_values + clip), old_values - clip)
    worse = torch.max((values - returns).square(), (clipped - returns).square())
    return masked_mean(worse, mask) / 2


def explained_variance(values, returns, mask):
    """1 - var(R - V) / var(R) over real tokens: 1 = it knew, 0 = no better than a constant."""
    def variance(x):
        return masked_mean((x - masked_mean(x, mask)).square(), mask)
    return 1 - variance(returns - values) / variance(returns).clamp(min=1e-8)


class AdaptiveKL:
    """A KL coefficient that is raised while the KL is above its target, and lowered below it.

    e = clip(KL / target - 1, -0.2, 0.2);   beta <- beta (1 + e n / horizon)

    target   nats per response; horizon: episodes in which beta moves by about a fifth, at most
    Source   Ziegler et al. 2019, section 2.2
    """

    def __init__(self, kl_coef, target, horizon):
        self.kl_coef, self.target, self.horizon = kl_coef, target, horizon

    def update(self, kl, episodes):
        """Take in the mean KL of so many episodes; returns the new coefficient."""
        error = min(max(kl / self.target - 1, -0.2), 0.2)
        self.kl_coef *= 1 + error * episodes / self.horizon
        return self.kl_coef

    def state_dict(self):
        return {"kl_coef": self.kl_coef}

    def load_state_dict(self, state):
        self.kl_coef = state["kl_coef"]


def kl_estimates(logprobs, reference_logprobs):
    """Three estimates of KL(pi || pi_ref) per token sampled from pi, with r = pi_ref / pi.

    k1 = -log r;   k2 = (log r)^2 / 2;   k3 = (r - 1) - log r
    k1 and k3 are unbiased, k2 has a low variance, k3 is never negative

    Returns  k1, k2, k3, each of the inputs' shape, nats
    Source   Schulman, "Approximating KL Divergence", 2020
    """
    same_shape(logprobs=logprobs, reference_logprobs=reference_logprobs)
    log_ratio = reference_logprobs - logprobs
    return -log_ratio, log_ratio.square() / 2, log_ratio.expm1() - log_ratio


def same_shape(**tensors):
    """ValueError naming every shape unless all are the same."""
    if len({x.shape for x in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise ValueError(f"shapes differ: {shapes}")
