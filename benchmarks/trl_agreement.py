"""Does minippo compute what TRL's PPOTrainer computes? Same weights, same data, number by number.

The peer is trl 0.11.4, the last release with the classic PPOTrainer; its own functions are called.
Nothing is downloaded: the model is a small GPT-2 with random weights. Exit status 1 if a number
differs and no reason is known.
"""

import math
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn.utils import parameters_to_vector

from minippo.bridges.gpt2_weights import to_ours
from minippo.generation import generate
from minippo.memory import PPOMemory
from minippo.policy import ActorCritic, frozen
from minippo.ppo import AdaptiveKL, PPOConfig, collect, gae, kl_estimates, ppo_loss, update, whiten
from minippo.run.errors import UserError
from minippo.run.exits import launch
from minippo.run.flags import option
from minippo.tokens import PAD, pad_left, pad_right
from minippo.transformer import Decoder, TransformerConfig

MISSING = None
try:   # trl imports its parts when they are first named: one that is missing is a RuntimeError
    import transformers
    import trl
    from tokenizers import Tokenizer, models
    from trl import AutoModelForCausalLMWithValueHead, PPOTrainer
    from trl import PPOConfig as TRLConfig
    from trl.core import masked_whiten
    from trl.trainer.utils import AdaptiveKLController
except (ImportError, RuntimeError) as error:
    MISSING = error

TOLERANCE = 1e-5
EPISODES, VOCABULARY, WIDTH, HEADS, LAYERS, CONTEXT = 16, 50, 32, 4, 2, 32
END = 0
LR, EPS, KL_COEF = 1e-3, 1e-5, 0.2
OURS = PPOConfig(kl_coef=KL_COEF, minibatch_size=EPISODES, microbatch_size=EPISODES, epochs=1,
                 max_grad_norm=0.0, missing_end_score=0.0)


@dataclass
class Config:
    out: str = option("", "file to write the table to")
    seed: int = option(0, "fixes weights and data", low=0)


@dataclass
class Row:
    """What was compared: its name, the numbers of both, and why they differ, where they do."""
    name: str
    theirs: torch.Tensor
    ours: torch.Tensor
    reason: str = ""

    @property
    def difference(self):
        return (self.theirs - self.ours).abs().max().item()

    @property
    def verdict(self):
        if self.difference <= TOLERANCE:
            return "agrees"
        return self.reason if self.reason and math.isfinite(self.difference) else "DIFFERS"


# ---------------------------------------------------------------- the same models and data twice

def their_model(seed):
    """A small random GPT-2 with TRL's value head; dropout as GPT-2 has it, 0.1."""
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        initializer_range=0.15, bos_token_id=END, eos_token_id=END)
    return AutoModelForCausalLMWithValueHead.from_pretrained(transformers.GPT2LMHeadModel(config))


def our_model(theirs):
    """An ActorCritic with the weights of TRL's model."""
    lm = Decoder(TransformerConfig(VOCABULARY, END, width=WIDTH, heads=HEADS, layers=LAYERS,
                                   context=CONTEXT))
    lm.load_state_dict(to_ours(theirs.pretrained_model.transformer.state_dict(), LAYERS))
    policy = ActorCritic(lm)
    policy.value_head.load_state_dict(theirs.v_head.summary.state_dict())
    return policy.eval()


def moved(model, seed):
    """The same model, a little further on."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def their_tokenizer(vocabulary=VOCABULARY):
    """Words "0", "1", ...; padded on the right with the end token, as GPT-2's usually is."""
    words = Tokenizer(models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0",
                                                eos_token="0", padding_side="right")


class Data:
    """Queries and responses of different lengths (or all responses of 9 tokens), and scores."""

    def __init__(self, seed, shortest=1):
        generator = torch.Generator().manual_seed(seed)

        def rows(shortest, longest):
            lengths = torch.randint(shortest, longest + 1, (EPISODES,), generator=generator)
            return [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in lengths]
        self.queries, self.responses = rows(2, 8), rows(shortest, 9)
        for response in self.responses[::2]:   # half of them end, half are cut off
            response[-1] = END
        self.scores = torch.randn(EPISODES, generator=generator)
        self.query, self.response = pad_left(self.queries), pad_right(self.responses)
        self.mask = self.response != PAD
        n = self.mask.sum()
        self.bessel = ((n - 1) / n).sqrt()   # TRL's whitened numbers are ours times this


class Pair:
    """TRL's trainer and our models on the same weights; the policy has left the reference.

    eps        of TRL's Adam
    settings   of TRL's trainer
    """

    def __init__(self, seed, eps=EPS, shortest=1, **settings):
        self.data = Data(seed, shortest)
        policy, reference = moved(their_model(seed), seed + 1), their_model(seed)
        self.policy, self.reference = our_model(policy), frozen(our_model(reference))
        self.policy.generate = lambda query, length, generator: self.data.response
        self.start = parameters_to_vector(self.policy.parameters()).detach()
        settings = {"mini_batch_size": EPISODES, "ppo_epochs": 1} | settings
        config = TRLConfig(batch_size=EPISODES, adap_kl_ctrl=False, init_kl_coef=KL_COEF,
                           accelerator_kwargs={"cpu": True}, **settings)
        self.trainer = PPOTrainer(config, policy, reference, their_tokenizer(),
                                  optimizer=torch.optim.Adam(policy.parameters(), LR, eps=eps))

    def collect(self):
        return collect(self.policy, self.reference, lambda query, response: self.data.scores,
                       self.data.query, OURS)

    def forward(self, model, **inputs):
        """What TRL's trainer gets from a model: log-probs, logits, values, mask."""
        queries, responses = self.data.queries, self.data.responses
        inputs = self.trainer.prepare_model_inputs(queries, responses) | inputs
        return self.trainer.batched_forward_pass(model, queries, responses, inputs,
                                                 return_logits=True)

    def train(self, phases, eps=EPS, scaled=True):
        """One update in both; `phases` are the settings of ours, one after the other.

        eps       of our Adam
        scaled    whether our advantages are scaled as TRL's are
        Returns   how far each weight has gone: theirs, ours; statistics: theirs, ours
        """
        rollout, seen = self.collect()
        scale, memory = self.data.bessel if scaled else 1.0, PPOMemory()
        memory.store(replace(rollout, advantages=scale * rollout.advantages))
        optimizer = torch.optim.Adam(self.policy.parameters(), LR, eps=eps)
        for phase in phases:
            seen |= update(self.policy, optimizer, memory, replace(OURS, **phase))
        stats = self.trainer.step(self.data.queries, self.data.responses, list(self.data.scores))
        theirs, ours = (parameters_to_vector(model.parameters()).detach() - self.start
                        for model in (our_model(self.trainer.model), self.policy))
        return theirs, ours, stats, seen


# ---------------------------------------------------------------- what is compared

BESSEL = "TRL divides the variance by n - 1, ours by n"


@torch.no_grad()
def rollout_rows(seed):
    """What is computed once per rollout, over the real tokens of the responses."""
    pair = Pair(seed)
    trainer, mask, bessel = pair.trainer, pair.data.mask, pair.data.bessel
    rollout, _ = pair.collect()
    logprobs, _, values, their_mask = pair.forward(trainer.model)
    reference = pair.forward(trainer.ref_model)[0]
    rewards, _, kl = trainer.compute_rewards(pair.data.scores, logprobs, reference, their_mask)
    values, advantages, returns = trainer.compute_advantages(values, rewards, their_mask)
    trainer.config.kl_penalty = "mse"
    square = trainer._kl_penalty(logprobs, reference)
    k1, k2, _ = kl_estimates(rollout.logprobs, rollout.reference_logprobs)
    kept = whiten(rollout.rewards, mask, shift_mean=False)
    mean = kept[mask].mean()
    for name, theirs, ours, reason in [
            ("log-probs of the policy", logprobs, rollout.logprobs, ""),
            ("log-probs of the reference", reference, rollout.reference_logprobs, ""),
            ("values", values, rollout.values, ""),
            ("KL per token, `kl` and k1", kl, k1, ""),
            ("KL per token, `mse` and k2", square, k2, ""),
            ("rewards", rewards, rollout.rewards, ""),
            ("advantages before whitening", returns - values,
             gae(rollout.rewards, rollout.values, OURS.gamma, OURS.lam)[0], ""),
            ("returns", returns, rollout.returns, ""),
            ("advantages, whitened", advantages, rollout.advantages, BESSEL),
            ("the same, ours times sqrt((n - 1) / n)", advantages, rollout.advantages * bessel, ""),
            ("rewards, whitened with their mean kept, ours scaled alike",
             masked_whiten(rewards, their_mask, shift_mean=False), (kept - mean) * bessel + mean,
             "")]:
        yield Row(name, theirs[their_mask.bool()], ours[mask], reason)
    trainer.tokenizer.padding_side = "left"
    attended = trainer.prepare_model_inputs(pair.data.queries, pair.data.responses)
    positions = (attended["attention_mask"].cumsum(1) - 1).clamp(min=0)
    for name, inputs, reason in [
            ("log-probs of the policy, TRL's tokenizer padding on the left", {},
             "pads count as positions in TRL's forward pass"),
            ("the same, positions given to TRL's model", {"position_ids": positions}, "")]:
        theirs, _, _, left_mask = pair.forward(trainer.model, **inputs)
        yield Row(name, theirs[left_mask.bool()], rollout.logprobs[mask], reason)


@torch.no_grad()
def loss_rows(seed):
    """The loss and its statistics under a policy that has moved away from the one that sampled."""
    pair = Pair(seed)
    trainer, scores = pair.trainer, pair.data.scores
    rollout, _ = pair.collect()
    old, _, values, mask = pair.forward(trainer.model)
    rewards, _, _ = trainer.compute_rewards(scores, old, pair.forward(trainer.ref_model)[0], mask)
    values, advantages, returns = trainer.compute_advantages(values, rewards, mask)
    new = moved(trainer.model, seed + 2)
    logprobs, logits, new_values, _ = pair.forward(new)
    _, _, theirs = trainer.loss(old, values, logits, new_values, logprobs, mask, advantages,
                                returns)
    theirs["policy/ratio"] = theirs["policy/ratio"][mask.bool()].mean()
    rollout = replace(rollout, advantages=rollout.advantages * pair.data.bessel)
    _, ours = ppo_loss(our_model(new), rollout, OURS)
    for name, key in [("policy loss", "loss/policy"), ("value loss", "loss/value"),
                      ("total loss", "loss/total"), ("clip fraction", "policy/clipfrac"),
                      ("approximate KL from the old policy", "policy/approxkl"),
                      ("entropy per token", "policy/entropy"), ("mean ratio", "policy/ratio")]:
        yield Row(name, theirs[key], ours[f"ppo/{key}"])


def update_rows(seed):
    """The weights after whole updates: TRL's `step` against our `collect` and `update`."""
    four, ours_four, cut = {"ppo_epochs": 4}, [{"epochs": 4}], {"max_grad_norm": 0.1}
    parts = {"mini_batch_size": 4, "gradient_accumulation_steps": 4}
    for name, theirs, ours, reason in [
            ("change of all weights, 1 step", {}, {"phases": [{}]}, ""),
            ("change of all weights, 4 epochs of 1 step", four, {"phases": ours_four}, ""),
            ("the same, advantages as each whitens them", four,
             {"phases": ours_four, "scaled": False}, BESSEL),
            ("the same, TRL's Adam as it is by default", four | {"eps": 1e-8},
             {"phases": ours_four}, "eps is 1e-8 there, 1e-5 in ours"),
            ("the same, this eps in both", four | {"eps": 1e-8},
             {"phases": ours_four, "eps": 1e-8},
             "a key's bias has gradient 0: at this eps Adam makes whole steps of its rounding"),
            ("1 step, gradient norm cut to 0.1", cut, {"phases": [cut]}, ""),
            ("the same, 4 epochs", cut | four, {"phases": [cut | {"epochs": 4}]},
             "TRL cuts in the first step of a run only: its list of weights is an iterator, and "
             "then used up"),
            ("the same, ours cut in the first step only", cut | four,
             {"phases": [cut, {"epochs": 3}]}, ""),
            ("1 step on 4 parts of the batch", parts, {"phases": [{"microbatch_size": 4}]},
             "TRL takes the mean of the parts' means, ours the mean over all tokens"),
            ("the same, all responses equally long", parts | {"shortest": 9},
             {"phases": [{"microbatch_size": 4}]}, "")]:
        yield Row(name, *Pair(seed, **theirs).train(**ours)[:2], reason)


def logged_rows(seed):
    """Figures that both log under the same name, or nearly, after an update of 4 epochs."""
    pair = Pair(seed, ppo_epochs=4)
    *_, theirs, ours = pair.train([{"epochs": 4}])
    for name, their_key, key, reason in [
            ("KL per response", "objective/kl", "objective/kl", ""),
            ("mean score", "ppo/mean_scores", "objective/scores", ""),
            ("clip fraction, mean of the epochs", "ppo/policy/clipfrac", "ppo/policy/clipfrac", ""),
            ("deviation of the scores", "ppo/std_scores", "objective/scores_std", BESSEL),
            ("entropy per response", "objective/entropy", "objective/entropy",
             "TRL: minus the log-probs sampled, an estimate; ours: exact"),
            ("explained variance", "ppo/val/var_explained", "ppo/val/var_explained",
             "TRL: 1 - mean (R - V)^2 / var R, V while it learns; "
             "ours: 1 - var(R - V) / var R, V before")]:
        yield Row(f"logged: {name}", torch.tensor(theirs[their_key]), torch.tensor(ours[key]),
                  reason)
    data = pair.data
    mine, again = (generate(pair.policy.lm, data.query, 9, top_k=1) for _ in range(2))
    for name, reason in [
            ("sampling after an update: tokens that differ when the likeliest are taken twice",
             "`step` leaves the model in training mode: TRL then samples with dropout"),
            ("the same after `model.eval()`", "")]:
        one, other = (torch.stack(pair.trainer.generate(
            data.queries, return_prompt=False, remove_padding=False, pad_token_id=END,
            do_sample=False, min_new_tokens=9, max_new_tokens=9)) for _ in range(2))
        yield Row(name, (one != other).sum().float(), (mine != again).sum().float(), reason)
        pair.trainer.model.eval()


def steering_row():
    theirs, ours = AdaptiveKLController(0.15, 6.0, 10_000), AdaptiveKL(0.15, 6.0, 10_000)
    found = []
    for kl in (12.0, 6.6, 0.0):
        theirs.update(kl, 512)
        found.append((theirs.value, ours.update(kl, 512)))
    return Row("adaptive KL coefficient, three updates", *torch.tensor(found).T)


# ---------------------------------------------------------------- the table

def table(rows):
    """Markdown: what, how many numbers, the largest, the largest difference, verdict."""
    lines = [f"torch {torch.__version__.split('+')[0]}, trl {trl.__version__}, "
             f"transformers {transformers.__version__}; CPU, float32; "
             f"agrees = no difference above {TOLERANCE:g}", "",
             "| quantity | numbers | largest | max difference | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.name} | {row.theirs.numel():,} | {row.theirs.abs().max():.2g} | "
                     f"{row.difference:.0e} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def main(config):
    if MISSING:
        raise UserError('TRL cannot be imported: pip install ".[peers]" into an environment '
                        f"of its own ({MISSING})")
    warnings.simplefilter("ignore")   # TRL announces its own end
    transformers.logging.set_verbosity_error()
    seed = config.seed
    rows = [*rollout_rows(seed), steering_row(), *loss_rows(seed), *update_rows(seed),
            *logged_rows(seed)]
    text = table(rows)
    print(text, end="")
    if config.out:
        Path(config.out).write_text(text, encoding="utf-8")
    if any(row.verdict == "DIFFERS" for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    launch(main, Config, __doc__)
