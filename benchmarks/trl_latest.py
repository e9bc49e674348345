"""TRL 1.12.0's side: trl.experimental.ppo, whose `train()` samples and learns, with a critic of its own."""

import copy
import io
import os
import tempfile
import warnings
from contextlib import redirect_stdout
from types import SimpleNamespace

import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models

from benchmarks import models
from benchmarks.ours import EPS
from benchmarks.trl_agreement import moved as drift
from minippo.policy import ActorCritic, frozen
from minippo.reward import RewardModel
from minippo.tokens import PAD

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
from trl.experimental.ppo import PPOConfig, PPOTrainer  # it reads the line above
from trl.experimental.ppo import ppo_trainer as trl


class EvenShare(torch.nn.Module):
    """The score of `models.even_share` in the form that TRL demands: a backbone, and a head on its states."""
    base_model_prefix = "backbone"

    def __init__(self):
        super().__init__()
        self.backbone, self.score = self.states, torch.nn.Identity()

    def states(self, input_ids, attention_mask, **ignored):
        real = attention_mask.bool()
        even = ((input_ids % 2 == 0) & real).cumsum(1) / real.cumsum(1).clamp(min=1)
        return SimpleNamespace(hidden_states=[(even * 2 - 1)[..., None]])


class Latest:
    """As `Ours`, in TRL, each call of `train()` one iteration long.

    Where all responses are equally long, no end token is known to it, and it samples as it does.
    moved   whether the policy has left its reference a little
    """

    def __init__(self, shape, query, lengths, epochs, minibatches, lr, seed, moved=False):
        self.shape, self.query, self.lengths = shape, query, lengths
        reference = models.gpt2(shape, seed)
        policy = copy.deepcopy(reference)
        if moved:
            drift(policy, seed)
        self.forced = bool((lengths < lengths.max()).any())
        policy.generate = self.sampling(policy.generate)
        torch.manual_seed(seed + 1)
        critic = transformers.GPT2ForSequenceClassification(models.gpt2_config(shape, num_labels=1))
        self.trainer = trainer(policy, reference, critic, query, int(lengths.max()), epochs, minibatches, lr,
                               seed, stop_token="eos" if self.forced else None)
        self.trainer.log = self.note

    def sampling(self, generate):
        """Their `generate`, whose texts are kept: in them queries stand in an order of its own."""
        def limited(*words, **how):
            if self.forced:
                how["logits_processor"] = [models.EndsAfter(self.lengths, self.query.shape[1])]
            found = generate(*words, **how)
            self.query, self.response = found.sequences.tensor_split([self.query.shape[1]], dim=1)
            if self.forced:
                end = self.response == models.END
                self.response = self.response.masked_fill(end.cumsum(1) > end.long(), PAD)
            return found
        return limited

    def note(self, metrics, *ignored):
        self.seen = metrics

    def iteration(self):
        """Sample and learn, what TRL logs of it, a dict."""
        with redirect_stdout(io.StringIO()):   # it says that it trains, and our output is one line
            self.trainer.train()
        return {"score": self.seen["objective/scores"], "KL": self.seen["objective/kl"],
                "value loss": self.seen["loss/value_avg"]}

    def as_ours(self):
        """Our ActorCritic with the weights as they are now, and the reference."""
        wrapped = self.trainer.model
        critic = RewardModel(models.decoder(wrapped.value_model, self.shape))
        critic.head.weight.data.copy_(wrapped.value_model.score.weight)
        critic.head.bias.requires_grad_(False)   # TRL's has neither a bias nor weights for tokens
        critic.words.requires_grad_(False)
        critic.gain.fill_(2.0)   # of the mean of two opinions, one of which is 0
        policy = ActorCritic(models.decoder(wrapped.policy, self.shape), critic).eval()
        return policy, frozen(ActorCritic(models.decoder(self.trainer.ref_model, self.shape)))

    @torch.no_grad()
    def judge(self, response):
        """What TRL's functions say of responses (B, R) of equal length, a dict of tensors."""
        text, first = torch.cat([self.query, response], dim=1), self.query.shape[1]
        found, pad = {}, self.shape.vocab_size
        for name, model in [("log-probs", self.trainer.model.policy),
                            ("log-probs of the reference", self.trainer.ref_model)]:
            logits = trl.forward(model, text, pad).logits[:, first - 1:-1]
            found[name] = trl.selective_log_softmax(logits, response).flatten()
        values, _, _ = trl.get_reward(self.trainer.model.value_model, text, pad, first)
        return found | {"values": values[:, first - 1:-1].flatten()}


def trainer(policy, reference, critic, query, response_length, epochs, minibatches, lr, seed, stop_token):
    """A PPOTrainer on the CPU, of one iteration. A minibatch is one optimizer step: with more than one
    accumulation step its optimizer would wait for several of them."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    batch, vocabulary = len(query), policy.config.vocab_size
    words = Tokenizer(tokenizer_models.WordLevel({str(i): i for i in range(vocabulary)}, unk_token="0"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token=str(models.END),
                                                     pad_token="[PAD]", padding_side="left")
    config = PPOConfig(
        output_dir=os.path.join(tempfile.gettempdir(), "minippo-benchmark"), use_cpu=True, bf16=False,
        report_to="none", save_strategy="no", disable_tqdm=True, num_sample_generations=0, seed=seed,
        total_episodes=batch, per_device_train_batch_size=batch, gradient_accumulation_steps=1,
        num_mini_batches=minibatches, num_ppo_epochs=epochs, local_rollout_forward_batch_size=batch,
        response_length=response_length, stop_token=stop_token, temperature=1.0, kl_coef=0.2, lam=0.95,
        gamma=1.0, vf_coef=0.1, cliprange=0.2, cliprange_value=0.2, missing_eos_penalty=None,
        gradient_checkpointing=False)
    parameters = [*policy.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr, eps=EPS, fused=True)   # its Trainer's own default is fused
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1.0)
    return PPOTrainer(config, tokenizer, policy, reference, EvenShare(),
                      Dataset.from_dict({"input_ids": query.tolist()}), critic,
                      optimizers=(optimizer, schedule), callbacks=[])
