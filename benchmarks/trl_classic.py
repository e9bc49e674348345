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


def trainer(policy, reference, vocabulary, batch, minibatch, epochs, lr, schedule=None, **settings):
    """A PPOTrainer on the CPU with a fixed KL coefficient, and Adam with our eps.

    schedule   Adam -> a learning rate scheduler
    settings   more of TRL's PPOConfig
    """
    warnings.simplefilter("ignore")   # TRL announces its own end
    transformers.logging.set_verbosity_error()
    optimizer = torch.optim.Adam(policy.parameters(), lr, eps=EPS)
    config = PPOConfig(batch_size=batch, mini_batch_size=minibatch, ppo_epochs=epochs, adap_kl_ctrl=False,
                       accelerator_kwargs={"cpu": True}, **settings)
    return PPOTrainer(config, policy, reference, their_tokenizer(vocabulary), optimizer=optimizer,
                      lr_scheduler=schedule and schedule(optimizer))


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
        responses = sample(self.trainer, queries, longest,
                           logits_processor=transformers.LogitsProcessorList([processor]))
        self.response = pad_right(responses)
        scores = models.even_share(self.query, self.response)
        seen = self.trainer.step(queries, responses, list(scores))
        return {"score": seen["ppo/mean_scores"], "KL": seen["objective/kl"],
                "value loss": seen["ppo/loss/value"]}

    def judge(self, response):
        """What `step` computes of responses (B, R) of equal length first, a dict of tensors."""
        return judged(self.trainer, list(self.query), list(response))


def sample(trainer, queries, length, **how):
    """Responses to queries, both lists of rows of tokens: the whole batch at once, no top-k."""
    return trainer.generate(
        queries, batch_size=len(queries), return_prompt=False, do_sample=True, top_k=0, top_p=1.0,
        temperature=1.0, max_new_tokens=length, pad_token_id=models.END, eos_token_id=models.END, **how)


@torch.no_grad()
def judged(trainer, queries, responses):
    """What `step` computes of responses first: log-probs of policy and reference, values, of real tokens."""
    inputs = trainer.prepare_model_inputs(queries, responses)
    (logprobs, _, values, mask), (reference, *_) = (
        trainer.batched_forward_pass(model, queries, responses, inputs)
        for model in (trainer.model, trainer.ref_model))
    mask = mask.bool()
    return {"log-probs": logprobs[mask], "values": values[mask],
            "log-probs of the reference": reference[mask]}


def actor(theirs, shape):
    """An ActorCritic with the weights of TRL's model."""
    policy = ActorCritic(models.decoder(theirs.pretrained_model, shape))
    policy.value_head.load_state_dict(theirs.v_head.summary.state_dict())
    return policy.eval()
