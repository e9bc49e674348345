"""The language model: who sees whom, where padding goes, and that the blocks are the usual ones."""

from functools import partial

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from minippo.tokens import PAD, Packed, pad_left, pad_right
from minippo.transformer import Block, KVCache, TransformerConfig, build, causal_mask


def pads(columns):
    """Columns of PAD for the three rows of `query` and `response`."""
    return torch.full((3, columns), PAD)


def same(a, b):
    """Equal up to the rounding of float32."""
    return torch.allclose(a, b, rtol=0, atol=1e-5)


@torch.no_grad()
def logits(lm, query, response):
    return lm(query, response)


def pads_change_nothing(lm, query, response, left, right):
    """Do pads before the query and behind the response leave logits of real tokens alone?"""
    wide = logits(lm, torch.cat([pads(left), query], 1), torch.cat([response, pads(right)], 1))
    real = response != PAD
    return same(wide[:, :response.shape[1]][real], logits(lm, query, response)[real])


# Alignment and causality

def test_a_response_of_r_tokens_has_r_plus_1_states_and_r_logits(lm, query, response):
    assert lm.states(query, response).shape == (3, 5, 16)
    assert lm(query, response).shape == (3, 4, 11)


def test_column_t_of_the_logits_has_seen_the_response_before_t_and_no_more(lm, query, response):
    changed = response.clone()
    changed[:, 1] = 5
    before, after = logits(lm, query, response), logits(lm, query, changed)
    assert same(before[:, :2], after[:, :2])
    assert not same(before[1, 2], after[1, 2]) and not same(before[1, 3], after[1, 3])


@pytest.mark.parametrize("column", [0, 1, 3])
def test_every_logit_has_seen_every_query_token(lm, query, response, column):
    changed = query.clone()
    changed[0, column] = 9
    before, after = logits(lm, query, response)[0], logits(lm, changed, response)[0]
    assert (before - after).abs().amax(-1).min() > 1e-4


def test_the_rows_of_a_batch_do_not_see_each_other(lm, query, response):
    changed = query.clone()
    changed[0] = 9
    assert same(logits(lm, query, response)[1:], logits(lm, changed, response)[1:])


def test_the_last_token_of_the_query_alone_predicts_the_first_of_the_response():
    lm = build(TransformerConfig(11, 0, width=16, heads=2, layers=1))
    query = torch.tensor([[0, 3, 4]])
    expected = lm.logits(lm.decode(query))[:, -1]
    assert same(lm(query, torch.tensor([[7]]))[:, 0], expected)


def test_a_seq2seq_response_follows_the_end_token_and_attends_to_the_real_query(query):
    lm = build(TransformerConfig(11, 5, "seq2seq", width=16, heads=2, layers=2))
    prefix, encoded = lm.context(query)
    assert prefix.tolist() == [[5], [5], [5]]
    keys, values, mask = encoded[1]
    assert mask[:, 0, 0].int().tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert len(encoded) == 2 and keys.shape == values.shape == (3, 2, 4, 8)


def test_a_decoder_response_follows_the_query(query):
    lm = build(TransformerConfig(11, 0, width=16, heads=2, layers=1))
    prefix, encoded = lm.context(query)
    assert torch.equal(prefix, query) and encoded is None


def test_the_encoder_reads_in_both_directions(query):
    lm = build(TransformerConfig(11, 0, "seq2seq", width=16, heads=2, layers=1))
    changed = query.clone()
    changed[:, -1] = 9
    before, after = lm.context(query)[1][0][0], lm.context(changed)[1][0][0]
    assert not same(before[0, :, 0], after[0, :, 0])


def test_the_causal_mask_hides_pads_and_the_future_and_shows_every_token_itself():
    real = torch.tensor([[False, True, True], [True, True, False]])
    mask = causal_mask(real, 2)[:, 0].int().tolist()
    assert mask == [[[0, 1, 0], [0, 1, 1]], [[1, 1, 0], [1, 1, 1]]]


# Padding

@pytest.mark.parametrize("columns", [0, 1, 5])
def test_d03_left_padding_changes_no_logits(lm, query, response, columns):
    assert pads_change_nothing(lm, query, response, columns, 0)


def test_d03_positions_count_the_real_tokens_before(lm, query):
    with torch.no_grad():
        lm.embedding.weight.zero_()
        lm.positions.weight.copy_(torch.arange(32.)[:, None].expand(32, 16))
    places = lm.embed(query.flatten(), (query != PAD).cumsum(1).flatten())[..., 0]
    assert places.view(3, 4).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1], [0, 0, 1, 2]]   # pads, too, at 0


@pytest.mark.parametrize("columns", [1, 5])
def test_d09_right_padding_changes_no_logits(lm, query, response, columns):
    assert pads_change_nothing(lm, query, response, 0, columns)


def test_d10_a_prompt_alone_gives_the_same_logits_as_in_a_batch(lm):
    together = logits(lm, pad_left([[0, 3, 4, 5], [0, 6]]), pad_right([[1, 2, 0], [9, 0]]))
    assert same(together[0:1], logits(lm, torch.tensor([[0, 3, 4, 5]]), torch.tensor([[1, 2, 0]])))
    assert same(together[1:2, :2], logits(lm, torch.tensor([[0, 6]]), torch.tensor([[9, 0]])))


def test_states_of_pads_and_gradients_through_them_are_finite(lm, query, response):
    states = lm.states(query, response)
    hidden = lm.decode(torch.cat([query, response], 1), lm.context(query)[1])   # left pads, too
    (states.square().sum() + hidden.square().sum()).backward()
    assert states.isfinite().all() and hidden.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in lm.parameters())


def test_no_gradient_flows_into_pads(lm, query, response):
    inputs, embed = [], lm.embed

    def remembered(tokens, count):
        inputs.append((tokens, embed(tokens, count)))
        inputs[-1][1].retain_grad()
        return inputs[-1][1]
    lm.embed = remembered
    lm(query, response)[response != PAD].square().sum().backward()
    for tokens, x in inputs:
        assert (x.grad[tokens == PAD] == 0).all()
    tokens, x = inputs[0]   # the query alone, or query and response
    rows = query if lm.config.architecture == "seq2seq" else torch.cat([query, response], 1)
    columns = Packed(rows != PAD).pack(torch.arange(rows.shape[1]).expand(len(rows), -1))
    in_query = (tokens != PAD) & (columns < query.shape[1])
    assert in_query.sum() == 9 and (x.grad[in_query] != 0).any(-1).all()


# Cache and limits

@torch.no_grad()
def cached(lm, query, response):
    """Logits for the response, decoded token by token as in sampling."""
    tokens, encoded = lm.context(query)
    cache = KVCache(lm.config, len(query), tokens.shape[1] + response.shape[1])
    columns = []
    for t in range(response.shape[1]):
        columns.append(lm.logits(lm.decode(tokens, encoded, cache)[:, -1]))
        tokens = response[:, t:t + 1]
    return torch.stack(columns, 1)


def test_d04_decoding_with_a_cache_gives_the_same_logits(lm, query, response):
    real = response != PAD
    assert same(cached(lm, query, response)[real], logits(lm, query, response)[real])


def test_d04_the_cache_takes_several_tokens_at_once(lm, query, response):
    prefix, encoded = lm.context(query)
    cache = KVCache(lm.config, 3, prefix.shape[1] + 4)
    parts = [lm.decode(tokens, encoded, cache)
             for tokens in (prefix, response[:, :2], response[:, 2:])]
    whole = lm.decode(torch.cat([prefix, response], 1), encoded)
    real = torch.cat([prefix, response], 1) != PAD
    assert same(torch.cat(parts, 1)[real], whole[real])


def test_a_context_that_is_too_long_is_refused(lm):
    one = torch.ones(1, 1).long()   # with either architecture, one token stands before the response
    assert lm.states(one, one.expand(1, 31)).shape[1] == 32
    with pytest.raises(ValueError, match="33 tokens do not fit into the context of 32"):
        lm.states(one, one.expand(1, 32))


def test_d03_the_context_holds_real_tokens_and_pads_take_no_room(lm):
    query, response = torch.ones(1, 1).long(), torch.ones(1, 31).long()   # 32 fit
    padded = F.pad(query, (3, 0), value=PAD), F.pad(response, (0, 3), value=PAD)
    assert same(lm.states(*padded)[:, :32], lm.states(query, response))


def test_a_query_that_is_too_long_is_refused(lm):
    with pytest.raises(ValueError, match="do not fit into the context of 32"):
        lm.states(torch.ones(1, 33).long(), torch.ones(1, 1).long())


def test_a_cache_that_is_used_up_says_so(lm, query):
    tokens, encoded = lm.context(query)
    cache = KVCache(lm.config, 3, tokens.shape[1])
    lm.decode(tokens, encoded, cache)
    with pytest.raises(ValueError, match="do not fit into a cache"):
        lm.decode(torch.ones(3, 1).long(), encoded, cache)


@pytest.mark.parametrize("wrong, message", [
    ({"architecture": "rnn"}, "none of decoder, seq2seq"), ({"heads": 3}, "not a multiple"),
    ({"end": 11}, "outside"), ({"end": -1}, "outside")])
def test_a_config_that_fits_nothing_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**({"vocab_size": 11, "end": 0, "width": 16, "heads": 2} | wrong))


# Sizes, initialisation, and blocks against PyTorch's

@pytest.mark.parametrize("architecture, count", [("decoder", 7280), ("seq2seq", 16112)])
def test_the_number_of_parameters(architecture, count):
    # A block of width 16: 2 norms 64, attention 272 + 544 + 272, MLP 1088 + 1040, in all 3280.
    # Decoder: embedding 11 * 16, positions 32 * 16, 2 blocks, norm 32 = 7280.
    # Seq2Seq: and in 2 blocks norm 32 and cross-attention 1088, an encoder of 2 and a norm = 16112.
    lm = build(TransformerConfig(11, 0, architecture, width=16, heads=2, layers=2, context=32))
    assert sum(p.numel() for p in lm.parameters()) == count


def test_gpt2_small_has_its_124_million_parameters():
    with torch.device("meta"):
        lm = build(TransformerConfig(50257, 50256, width=768, heads=12, layers=12, context=1024))
    assert sum(p.numel() for p in lm.parameters()) == 124_439_808   # as published with the weights


@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
def test_weights_start_as_gpt2_s_do(architecture):
    torch.manual_seed(0)
    lm = build(TransformerConfig(300, 0, architecture, width=128, heads=2, layers=8))
    for name, parameter in lm.named_parameters():
        if "norm" in name or name.endswith("bias"):
            assert (parameter == ("norm" in name and name.endswith("weight"))).all(), name
        else:   # 8 layers add 16 times to the residual stream: 0.02 / sqrt(16) = 0.005
            std = 0.005 if ".out." in name or ".contract." in name else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.03), name


def copy_attention(ours, theirs):
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())


@torch.no_grad()
def pytorch_layer(ours, cross):
    """PyTorch's own pre-norm layer, with our block's weights."""
    kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
    theirs = kind(16, 2, 64, dropout=0.0, activation=partial(F.gelu, approximate="tanh"),
                  norm_first=True, batch_first=True)
    names = ["attention", "cross", "mlp"] if cross else ["attention", "mlp"]
    for i, name in enumerate(names):
        getattr(theirs, f"norm{i + 1}").load_state_dict(getattr(ours, f"norm_{name}").state_dict())
    copy_attention(ours.attention, theirs.self_attn)
    if cross:
        copy_attention(ours.cross, theirs.multihead_attn)
    theirs.linear1.load_state_dict(ours.expand.state_dict())
    theirs.linear2.load_state_dict(ours.contract.state_dict())
    return theirs


@pytest.mark.parametrize("cross", [False, True])
def test_a_block_computes_what_pytorch_s_pre_norm_layer_computes(cross):
    torch.manual_seed(0)
    ours = Block(TransformerConfig(11, 0, width=16, heads=2, layers=2), cross)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, memory = torch.randn(3, 5, 16), torch.randn(3, 4, 16)
    mask = causal_mask(torch.ones(1, 5, dtype=torch.bool), 5)
    hidden = torch.tensor([True, False, False, False])   # the first column of the memory
    theirs = pytorch_layer(ours, cross)
    if cross:
        expected = theirs(x, memory, tgt_mask=~mask[0, 0],
                          memory_key_padding_mask=hidden.expand(3, 4))
        keys_values = ours.cross.keys_values(memory.flatten(0, 1), all_real(3, 4))
        encoded = *keys_values, ~hidden[None, None, None]
        actual = ours(x.flatten(0, 1), all_real(3, 5), mask, encoded=encoded)
    else:
        expected, actual = theirs(x, src_mask=~mask[0, 0]), ours(x.flatten(0, 1), all_real(3, 5), mask)
    assert torch.allclose(actual, expected.flatten(0, 1), rtol=1e-4, atol=1e-4)


def all_real(*shape):
    return Packed(torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("architecture", ["decoder", "seq2seq"])
def test_recomputing_blocks_changes_no_gradient_and_keeps_less(architecture, dropout, query, response):
    config = TransformerConfig(11, 0, architecture, width=16, heads=2, layers=2, context=32, dropout=dropout)
    found = {}
    for recompute in (False, True):
        torch.manual_seed(0)
        lm, kept = build(config).train(), []
        lm.recompute = recompute
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            loss = lm(query, response).square().sum()
        loss.backward()
        found[recompute] = torch.cat([p.grad.flatten() for p in lm.parameters()]), sum(kept)
    assert torch.equal(found[True][0], found[False][0])
    assert found[True][1] < found[False][1] / 5   # what is between blocks, in both stacks, and after them


@torch.no_grad()
def test_the_last_step_of_each_stack_is_its_norm(lm, query, response):
    lm.norm.weight.zero_()   # whatever came before, the state is now the bias
    real = torch.cat([query[:, -1:], response], 1) != PAD
    assert same(lm.states(query, response), lm.norm.bias * real[..., None])
    if lm.config.architecture == "seq2seq":
        lm.encoder_norm.weight.zero_()
        keys = lm.context(query)[1][0][0].transpose(1, 2)[query != PAD]
        assert same(keys, keys[:1].expand_as(keys))


def test_with_a_dropout_of_1_the_embedding_is_0_and_a_block_adds_nothing():
    config = TransformerConfig(11, 0, "seq2seq", width=16, heads=2, layers=1, dropout=1.0)
    lm, x = build(config).train(), torch.randn(3, 16)
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    block = lm.blocks[0]
    assert (lm.embed(torch.tensor([3]), torch.tensor([1])) == 0).all()
    encoded = *block.cross.keys_values(x, all_real(1, 3)), mask
    assert torch.equal(block(x, all_real(1, 3), mask, encoded=encoded), x)


def test_dropout_is_off_in_evaluation(query, response):
    lm = build(TransformerConfig(11, 0, width=16, heads=2, layers=2, dropout=0.5))
    assert not torch.equal(lm.train()(query, response), lm(query, response))
    assert torch.equal(lm.eval()(query, response), lm(query, response))


def test_the_head_is_the_embedding_and_both_learn(lm):
    unit = torch.eye(16)   # logit v of unit vector i is row v, column i of the embedding
    assert torch.equal(lm.logits(unit), lm.embedding.weight.T)
    lm.logits(torch.full((1, 16), 2.0)).sum().backward()
    assert (lm.embedding.weight.grad == 2).all()   # d logit v / d row v = the state


def test_every_layer_of_a_seq2seq_has_its_own_view_of_the_query(query, response):
    lm = build(TransformerConfig(11, 0, "seq2seq", width=16, heads=2, layers=3)).eval()
    for block in lm.blocks:
        before = logits(lm, query, response)
        nn.init.normal_(block.cross.key_value.weight)
        assert not same(before, logits(lm, query, response))
