"""TRL 0.11.4's side: the last release with the classic PPOTrainer (`generate`, then `step`)."""

import copy
import warnings

import torch
import transformers
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

from benchmarks import models
from benchmarks.ours import EPS
from benchmarks.trl_agreement import moved as drift
from benchmarks.trl_agreement import their_tokenizer
from minippo.policy import ActorCritic
from minippo.tokens import pad_right


def trainer(policy, reference, vocabulary, batch, minibatch, epochs, lr, **settings):
    """A PPOTrainer on the CPU with a fixed KL coefficient, and Adam with our eps."""
    warnings.simplefilter("ignore")   # TRL announces its own end
    transformers.logging.set_verbosity_error()
    optimizer = torch.optim.Adam(policy.parameters(), lr, eps=EPS)
    config = PPOConfig(batch_size=batch, mini_batch_size=minibatch, ppo_epochs=epochs, init_kl_coef=0.2,
                       adap_kl_ctrl=False, accelerator_kwargs={"cpu": True})
    return PPOTrainer(config, policy, reference, their_tokenizer(vocabulary), optimizer=optimizer, **settings)


def with_value_head(gpt2):
    """TRL's wrapper: a value head on the states, without dropout."""
    return AutoModelForCausalLMWithValueHead.from_pretrained(gpt2, summary_dropout_prob=0.0)


class Classic:
    """As `Ours`, in TRL.

    moved   whether the policy has left its reference a little
    """

    def __init__(self, shape, query, lengths, epochs, minibatches, lr, seed, moved=False):
        self.shape, self.query, self.lengths = shape, query, lengths
        reference = with_value_head(models.gpt2(shape, seed))
        policy = copy.deepcopy(reference)
        if moved:
            drift(policy, seed)
        self.trainer = trainer(policy, reference, shape.vocab_size, len(query), len(query) // minibatches,
                               epochs, lr)

    def as_ours(self):
        """Our ActorCritic with the weights as they are now, and the reference."""
        return tuple(actor(model, self.shape) for model in (self.trainer.model, self.trainer.ref_model))

    def iteration(self):
        """Sample and learn, what TRL logs of it, a dict of tensors."""
        longest, processor = int(self.lengths.max()), models.EndsAfter(self.lengths, self.query.shape[1])
        queries = list(self.query)
        responses = self.trainer.generate(
            queries, batch_size=len(queries), return_prompt=False, do_sample=True, top_k=0, top_p=1.0,
            temperature=1.0, max_new_tokens=longest, pad_token_id=models.END, eos_token_id=models.END,
            logits_processor=transformers.LogitsProcessorList([processor]))
        self.response = pad_right(responses)
        scores = models.even_share(self.query, self.response)
        seen = self.trainer.step(queries, responses, list(scores))
        return {"score": seen["ppo/mean_scores"], "KL": seen["objective/kl"],
                "value loss": seen["ppo/loss/value"]}

    @torch.no_grad()
    def judge(self, response):
        """What `step` computes of responses (B, R) of equal length first, a dict of tensors."""
        parts, queries = list(response), list(self.query)
        inputs = self.trainer.prepare_model_inputs(queries, parts)
        (logprobs, _, values, mask), (reference, *_) = (
            self.trainer.batched_forward_pass(model, queries, parts, inputs)
            for model in (self.trainer.model, self.trainer.ref_model))
        mask = mask.bool()
        return {"log-probs": logprobs[mask], "log-probs of the reference": reference[mask],
                "values": values[mask]}


def actor(theirs, shape):
    """An ActorCritic with the weights of TRL's model."""
    policy = ActorCritic(models.decoder(theirs.pretrained_model, shape))
    policy.value_head.load_state_dict(theirs.v_head.summary.state_dict())
    return policy.eval()
