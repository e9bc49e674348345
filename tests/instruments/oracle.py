"""PPO of a language model a second time, to check the first: numpy, float64, no autograd.

Written from the papers and not from minippo/ppo.py. An episode has as many entries as it has
tokens: nothing is padded, so nothing is masked. The policy is two tables, so that every gradient
can be written down. An episode lists the states, rows of the tables, that it went through. Where
no two tokens share a state, the tables are the outputs of a network; where they do, gradients add
up, as they do in a network's weights.

S states, V vocabulary, n tokens of an episode. `settings` is anything with PPOConfig's fields.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Tables:
    """A tabular actor and critic."""
    logits: np.ndarray       # (S, V), divided by the temperature before anything else
    values: np.ndarray       # (S,)
    temperature: float = 1.0

    def logprobs(self, state):
        """Log-probability of every token in this state: (V,) nats."""
        scaled = self.logits[state] / self.temperature
        below = scaled - scaled.max()
        return below - math.log(np.exp(below).sum())


@dataclass
class Episode:
    """One response; the fields after `ended` are arrays (n,) that `judge` fills in."""
    states: list
    tokens: list
    score: float
    ended: bool                              # False: cut off by the limit
    logprobs: np.ndarray = None
    reference_logprobs: np.ndarray = None
    values: np.ndarray = None
    rewards: np.ndarray = None
    advantages: np.ndarray = None
    returns: np.ndarray = None


# ---------------------------------------------------------------- what was earned

def judge(episodes, policy, reference, settings):
    """Fill in the episodes of one rollout; returns statistics of it under minippo's names."""
    for episode in episodes:
        steps = list(zip(episode.states, episode.tokens))
        episode.logprobs = np.array([policy.logprobs(s)[a] for s, a in steps])
        episode.reference_logprobs = np.array([reference.logprobs(s)[a] for s, a in steps])
        episode.values = policy.values[episode.states]
        episode.rewards = penalized(episode, settings)
    if settings.whiten_rewards:
        standardize(episodes, "rewards", keep_mean=True)
    for episode in episodes:
        episode.advantages = advantages(
            episode.rewards, episode.values, settings.gamma, settings.lam)
        episode.returns = episode.advantages + episode.values
    statistics = described(episodes, policy, settings)
    standardize(episodes, "advantages", keep_mean=False)
    return statistics


def penalized(episode, settings):
    """R = r(x, y) - beta log(pi(y|x) / rho(y|x)) (Ziegler et al. 2019, eq. 2), token by token.

    The logarithm of a response is the sum over its tokens, so each is charged its own part. The
    score r is earned when the response is complete.
    """
    rewards = [-settings.kl_coef * (own - other)
               for own, other in zip(episode.logprobs, episode.reference_logprobs)]
    rewards[-1] += earned(episode, settings)
    return np.array(rewards)


def earned(episode, settings):
    """What a whole response brings: its score, or the fixed number of one that has no end."""
    if episode.ended or settings.missing_end_score == 0:
        return episode.score
    return settings.missing_end_score


def advantages(rewards, values, gamma, lam):
    """A_t = sum over l of (gamma lam)^l delta_{t+l} (Schulman et al. 2016, eq. 16), as it stands.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t); the state after the last token is worth nothing.
    """
    n = len(rewards)
    future = [*values[1:], 0.0]
    delta = [rewards[t] + gamma * future[t] - values[t] for t in range(n)]
    return np.array([sum((gamma * lam) ** ahead * delta[t + ahead] for ahead in range(n - t))
                     for t in range(n)])


def standardize(episodes, name, keep_mean):
    """Divide by the deviation over all tokens of all episodes; the mean becomes 0 or stays."""
    everything = np.concatenate([getattr(e, name) for e in episodes])
    mean, deviation = everything.mean(), math.sqrt(everything.var() + 1e-8)
    for episode in episodes:
        scaled = (getattr(episode, name) - mean) / deviation
        setattr(episode, name, scaled + mean if keep_mean else scaled)


def described(episodes, policy, settings):
    scores = np.array([e.score for e in episodes])
    values = np.concatenate([e.values for e in episodes])
    returns = np.concatenate([e.returns for e in episodes])
    return {
        "objective/scores": scores.mean(),
        "objective/scores_std": scores.std(),
        "objective/paid": np.mean([earned(e, settings) for e in episodes]),
        "objective/kl": np.mean([sum(e.logprobs) - sum(e.reference_logprobs) for e in episodes]),
        "objective/entropy": np.mean([sum(uncertainty(policy.logprobs(s)) for s in e.states)
                                      for e in episodes]),
        "objective/rlhf_reward": np.mean([sum(e.rewards) for e in episodes]),
        "objective/kl_coef": settings.kl_coef,
        "ppo/returns/mean": returns.mean(),
        "ppo/val/mean": values.mean(),
        "ppo/val/var_explained": 1 - (returns - values).var() / max(returns.var(), 1e-8),
        "tokens/responses_len_mean": np.mean([len(e.tokens) for e in episodes]),
        "tokens/ended": np.mean([e.ended for e in episodes]),
    }


def uncertainty(logprobs):
    """Entropy of a distribution: H = -sum p log p. (V,) -> nats"""
    return -(np.exp(logprobs) * logprobs).sum()


# ---------------------------------------------------------------- the loss and its slopes

def surrogate(ratio, advantage, clip):
    """-L^CLIP of one token (Schulman et al. 2017, eq. 7), read as a ceiling on the gain.

    min(rho A, clip(rho) A) = min(rho A, ceiling), where the ceiling is (1 + eps) A for A > 0 and
    (1 - eps) A for A < 0: the other side of the clip is never the smaller.
    Returns   loss, its slope in the ratio, whether the ceiling held
    """
    ceiling = (1 + clip if advantage > 0 else 1 - clip) * advantage
    if ratio * advantage > ceiling:
        return -ceiling, 0.0, True
    return -ratio * advantage, -advantage, False


def critic_error(value, old, target, clip):
    """Half the larger squared error, of the value or of the value held near the old one.

    Returns   loss, its slope in the value, whether the held value counted (it does not move:
              slope 0)
    """
    held = min(max(value, old - clip), old + clip)
    if abs(held - target) > abs(value - target):
        return (held - target) ** 2 / 2, 0.0, True
    return (value - target) ** 2 / 2, value - target, False


def token_terms(policy, episode, t, settings):
    """One token's part: dlogits (V,), dvalue, and its figures.

    With z = logits / T:   d log p_a / d z = onehot(a) - p;   d H / d z = -p (log p + H)
    """
    logprobs = policy.logprobs(episode.states[t])
    p, own_entropy = np.exp(logprobs), uncertainty(logprobs)
    log_ratio = logprobs[episode.tokens[t]] - episode.logprobs[t]
    ratio = math.exp(log_ratio)
    policy_part, in_ratio, ceiling = surrogate(ratio, episode.advantages[t], settings.clip)
    value_part, in_value, held = critic_error(
        policy.values[episode.states[t]], episode.values[t], episode.returns[t],
        settings.value_clip)
    in_logprob = in_ratio * ratio            # d rho / d log p = rho
    chosen = np.eye(len(p))[episode.tokens[t]]
    in_scaled = in_logprob * (chosen - p) + settings.entropy_coef * p * (logprobs + own_entropy)
    return in_scaled / policy.temperature, settings.value_coef * in_value, {
        "ppo/loss/policy": policy_part,
        "ppo/loss/value": value_part,
        "ppo/loss/total": (policy_part + settings.value_coef * value_part
                           - settings.entropy_coef * own_entropy),
        "ppo/policy/entropy": own_entropy,
        "ppo/policy/clipfrac": float(ceiling),
        "ppo/policy/approxkl": log_ratio ** 2 / 2,
        "ppo/policy/ratio": ratio,
        "value_clipfrac": float(held),       # minippo does not report this one
    }


def loss_and_gradients(policy, episodes, settings):
    """Means over all tokens: figures by name, d loss / d logits (S, V), d loss / d values (S,)."""
    dlogits, dvalues = np.zeros_like(policy.logits), np.zeros_like(policy.values)
    tokens = []
    for episode in episodes:
        for t, state in enumerate(episode.states):
            in_logits, in_value, figures = token_terms(policy, episode, t, settings)
            dlogits[state] += in_logits
            dvalues[state] += in_value
            tokens.append(figures)
    return mean_figures(tokens), dlogits / len(tokens), dvalues / len(tokens)


def mean_figures(dicts):
    return {name: sum(figures[name] for figures in dicts) / len(dicts) for name in dicts[0]}


# ---------------------------------------------------------------- the update

class Adam:
    """Kingma & Ba 2015, algorithm 1, which PyTorch follows: eps stands beside the *corrected*
    deviation. (TensorFlow's, in the paper's last line of section 2, puts it beside the raw one.)
    """

    def __init__(self, lr, eps, betas=(0.9, 0.999)):
        self.lr, self.eps, self.betas, self.steps = lr, eps, betas, 0
        self.first, self.second = {}, {}     # running means of g and g^2

    def step(self, gradients):
        """Gradients by name -> what to add to the parameter of that name."""
        self.steps += 1
        b1, b2 = self.betas
        change = {}
        for name, g in gradients.items():
            self.first[name] = b1 * self.first.get(name, 0) + (1 - b1) * g
            self.second[name] = b2 * self.second.get(name, 0) + (1 - b2) * g ** 2
            mean = self.first[name] / (1 - b1 ** self.steps)
            square = self.second[name] / (1 - b2 ** self.steps)
            change[name] = -self.lr * mean / (np.sqrt(square) + self.eps)
        return change


def update(policy, adam, minibatches, settings):
    """Learn from the minibatches of all epochs, in order; the tables change in place.

    minibatches   lists of Episodes
    Returns       figures under minippo's names: means over the minibatches, counts of events
    """
    steps = []
    for episodes in minibatches:
        figures, dlogits, dvalues = loss_and_gradients(policy, episodes, settings)
        norm = math.sqrt((dlogits ** 2).sum() + (dvalues ** 2).sum())
        stop = 0 < 1.5 * settings.early_stop_kl < figures["ppo/policy/approxkl"]
        skip = settings.max_ratio > 0 and figures["ppo/policy/ratio"] > settings.max_ratio
        steps.append(figures | {
            "ppo/grad_norm": norm, "ppo/early_stops": stop, "ppo/skipped": skip})
        if stop:
            break
        if skip:
            continue
        limit = settings.max_grad_norm or math.inf
        shrink = min(1.0, limit / (norm + 1e-6))      # PyTorch's guard against a norm of 0
        change = adam.step({"logits": shrink * dlogits, "values": shrink * dvalues})
        policy.logits += change["logits"]
        policy.values += change["values"]
    events = {name: sum(s[name] for s in steps) for name in ("ppo/early_stops", "ppo/skipped")}
    return mean_figures(steps) | events
