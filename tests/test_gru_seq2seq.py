"""The translation model alone: padding, decoding step by step, packing, its options."""

import copy

import pytest
import torch
import torch.nn.functional as F
from fairseq.data import Dictionary
from sparse_samples import pruned

from fairseq_rnnprune.layers.packable import Packable
from fairseq_rnnprune.models.attention import Attention, Memory
from fairseq_rnnprune.models.gru_seq2seq import GRUSeq2Seq, GRUSeq2SeqConfig
from fairseq_rnnprune.pruning import read_tag

PAD, EOS = 1, 2


def dictionary(words="abcdefghij"):
    result = Dictionary()
    for word in words:
        result.add_symbol(word)
    return result


class Task:
    source_dictionary = target_dictionary = dictionary()


def build(task=Task, **options):
    torch.manual_seed(0)
    small = {"encoder_embed_dim": 6, "encoder_hidden_size": 5}
    small |= {"decoder_embed_dim": 6, "decoder_hidden_size": 8}
    return GRUSeq2Seq.build_model(GRUSeq2SeqConfig(**small | options), task).eval()


VARIANTS = [
    {},
    {"encoder_layers": 2, "decoder_layers": 2, "layer_norm": True},
    {"share_all_embeddings": True, "decoder_layers": 3},
    {"share_decoder_input_output_embed": True, "encoder_embed_dim": 4},
]
variants = pytest.mark.parametrize("options", VARIANTS, ids=str)
SENTENCES = [[5, 9, 4, EOS], [7, EOS], [4, 6, 8, 5, 4, EOS], [EOS]]
TOKENS = torch.tensor([[EOS, 5, 9, 4, 7]] * 2 + [[EOS, 4, 4, 8, 6]] * 2)


def batch(sentences, side="left", width=6):
    rows = []
    for tokens in sentences:
        padding = [PAD] * (width - len(tokens))
        before = {"left": padding, "right": [], "both": padding[::2]}[side]
        rows.append(before + tokens + padding[len(before) :])
    return torch.tensor(rows)


@variants
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_a_sentence_is_the_same_alone_and_in_a_batch(options, side):
    model = build(**options)
    together, extra = model(batch(SENTENCES, side), None, TOKENS)
    for row, sentence in enumerate(SENTENCES):
        alone, its = model(torch.tensor([sentence]), None, TOKENS[row : row + 1])
        torch.testing.assert_close(together[row], alone[0])
        is_token = batch(SENTENCES, side)[row] != PAD
        attn = extra["attn"][0][row]
        torch.testing.assert_close(attn[:, is_token], its["attn"][0][0])
        assert attn[:, ~is_token].eq(0).all()


def test_a_padding_symbol_inside_a_sentence_does_not_end_it():
    model = build()
    tokens = TOKENS[:1]
    a, extra = model(torch.tensor([[5, PAD, 9, EOS]]), None, tokens)
    b, _ = model(torch.tensor([[PAD, 5, PAD, 9, EOS]]), None, tokens)
    torch.testing.assert_close(a, b)
    for other in ([5, PAD, 4, EOS], [5, PAD, 9, 7]):
        c, _ = model(torch.tensor([other]), None, tokens)
        assert not torch.allclose(a, c)
    assert extra["attn"][0][0, :, 1].eq(0).all()


def test_a_source_of_padding_alone_is_refused():
    with pytest.raises(ValueError, match="expected lengths from 1 to "):
        build().encoder(torch.full((1, 3), PAD))


def test_targets_padded_on_the_left_are_refused():
    tokens = torch.tensor([[PAD, EOS, 5]])
    with pytest.raises(ValueError, match="targets padded on the right.*leave out --left-pad-tar"):
        build()(batch(SENTENCES[:1]), None, tokens)


@variants
@pytest.mark.parametrize("packed", [False, True])
def test_step_by_step_equals_all_at_once(options, packed):
    model = build(**options)
    if packed:
        pack(model)
    with torch.no_grad():
        encoder_out = model.encoder(batch(SENTENCES))
        whole, extra = model.decoder(TOKENS, encoder_out)
        assert whole.shape == (4, 5, len(Task.target_dictionary))
        assert extra["attn"][0].shape == (4, 5, 6)
        state = {}
        for t in range(5):
            step, its = model.decoder(TOKENS[:, : t + 1], encoder_out, state)
            torch.testing.assert_close(step[:, 0], whole[:, t])
            torch.testing.assert_close(its["attn"][0][:, 0], extra["attn"][0][:, t])


def test_a_prefix_and_then_steps():
    model = build(decoder_layers=2)
    encoder_out = model.encoder(batch(SENTENCES))
    whole, _ = model.decoder(TOKENS, encoder_out)
    state = {}
    prefix, _ = model.decoder(TOKENS[:, :3], encoder_out, state)
    torch.testing.assert_close(prefix, whole[:, :3])
    step, _ = model.decoder(TOKENS[:, :4], encoder_out, state)
    torch.testing.assert_close(step[:, 0], whole[:, 3])


@pytest.mark.parametrize("order", [[1, 1, 0, 3, 2, 2], [3, 0]])
def test_state_and_memory_follow_the_beam(order):
    model = build(decoder_layers=2)
    order = torch.tensor(order)
    encoder_out = model.encoder(batch(SENTENCES))
    state = {}
    model.decoder(TOKENS[:, :3], encoder_out, state)
    model.decoder.reorder_incremental_state(state, order)
    encoder_out = model.encoder.reorder_encoder_out(encoder_out, order)
    step, _ = model.decoder(TOKENS[order][:, :4], encoder_out, state)
    whole, _ = model(batch(SENTENCES)[order], None, TOKENS[order][:, :4])
    torch.testing.assert_close(step[:, 0], whole[:, 3])
    model.decoder.reorder_incremental_state({}, order)  # nothing cached yet: nothing to do


def test_the_encoder_s_gru_is_torch_s():
    encoder = build(encoder_layers=2, layer_norm=True).encoder
    torch.nn.init.normal_(encoder.norm.weight)
    gru = torch.nn.GRU(6, 5, 2, batch_first=True, bidirectional=True)
    gru.load_state_dict(encoder.gru.state_dict())
    source = torch.tensor(SENTENCES[2:3])
    outputs, states = gru(encoder.embed_tokens(source))
    encoded = encoder(source)
    torch.testing.assert_close(encoded["keys"], encoder.memory.key(encoder.norm(outputs)))
    torch.testing.assert_close(encoded["values"], encoder.memory.value(encoder.norm(outputs)))
    torch.testing.assert_close(encoded["final"], torch.cat([states[2], states[3]], dim=1))


def test_the_decoder_s_gru_is_torch_s():
    model = build(decoder_layers=2).double()
    encoder_out = model.encoder(batch(SENTENCES))
    whole, _ = model.decoder.extract_features(TOKENS, encoder_out)
    gru = torch.nn.GRU(12, 8, 2).double()
    gru.load_state_dict(model.decoder.gru.state_dict())
    hidden = torch.tanh(model.decoder.bridge(encoder_out["final"])).view(4, 2, 8).transpose(0, 1)
    feed = torch.zeros(4, 6).double()
    for t in range(5):
        x = torch.cat([model.decoder.embed_tokens(TOKENS[:, t]), feed], dim=1)
        out, hidden = gru(x.unsqueeze(0), hidden)
        feed, _ = model.decoder.attention(out[0], encoder_out)
        torch.testing.assert_close(feed, whole[:, t])


def test_attention_is_luong_s_general_one():
    memory, attention = Memory(5, 3, 4).double(), Attention(3, 4).double()
    outputs, state = torch.randn(1, 6, 5).double(), torch.randn(1, 3).double()
    is_padding = torch.tensor([[True, False, False, False, False, True]])
    vector, weights = attention(state, memory(outputs, is_padding))
    seen = outputs[0, 1:5]
    expected = torch.softmax(seen @ memory.key.weight.t() @ state[0], dim=0)
    torch.testing.assert_close(weights[0, 1:5], expected)
    joined = torch.cat([memory.value.weight, attention.state.weight], dim=1)
    both = torch.cat([expected @ seen, state[0]])
    torch.testing.assert_close(vector[0], torch.tanh(joined @ both + attention.state.bias))


def pack(model, choice="fp32"):
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, Packable):
                layer.pack(choice)
                assert layer.sparse is not None
    return model


@variants
def test_packed_equals_dense(options):
    model = pruned(build(**options), keep_every=3)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        dense, attn = model(batch(SENTENCES), None, TOKENS)
        packed, its = pack(model)(batch(SENTENCES), None, TOKENS)
    torch.testing.assert_close(packed, dense)
    torch.testing.assert_close(its["attn"][0], attn["attn"][0])
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_packed_copies_are_what_runs():
    model = pack(build(decoder_layers=2))
    with torch.no_grad():
        dense, _ = build(decoder_layers=2)(batch(SENTENCES), None, TOKENS)
        for parameter in model.parameters():
            if parameter.dim() == 2 and read_tag(parameter).type != "embedding":
                parameter.zero_()
        packed, _ = model(batch(SENTENCES), None, TOKENS)
    torch.testing.assert_close(packed, dense)


@pytest.mark.parametrize("choice", ["bf16", "int8"])
def test_coarser_values_change_little(choice):
    model = build()
    with torch.no_grad():
        dense, _ = model(batch(SENTENCES), None, TOKENS)
        packed, _ = pack(model, choice)(batch(SENTENCES), None, TOKENS)
    assert not torch.equal(packed, dense)
    torch.testing.assert_close(packed, dense, atol=0.02, rtol=0)


def test_every_matrix_is_tagged():
    model = build(encoder_layers=2, decoder_layers=2)
    tags = {n: read_tag(p) for n, p in model.named_parameters()}
    assert {n for n, t in tags.items() if t is None} == {
        n for n, p in model.named_parameters() if p.dim() != 2
    }
    types = {n: (t.type, t.gates) for n, t in tags.items() if t}
    for side, suffix in (("encoder", "l1_reverse"), ("decoder", "l1")):
        assert types.pop(f"{side}.embed_tokens.weight") == ("embedding", 1)
        assert types.pop(f"{side}.gru.weight_hh_{suffix}") == ("recurrent", 3)
        assert types.pop(f"{side}.gru.weight_ih_{suffix}") == ("input", 3)
    linear = {n for n, t in types.items() if t == ("linear", 1)}
    assert linear == {
        *("encoder.memory.key.weight", "encoder.memory.value.weight", "decoder.bridge.weight"),
        *("decoder.attention.state.weight", "decoder.output_projection.weight"),
    }


def test_shared_embeddings_are_one_parameter():
    model = build(share_all_embeddings=True)
    weight = model.encoder.embed_tokens.weight
    assert model.decoder.embed_tokens.weight is weight
    assert model.decoder.output_projection.weight is weight
    assert read_tag(weight).type == "linear"
    tied = build(share_decoder_input_output_embed=True)
    assert tied.decoder.output_projection.weight is tied.decoder.embed_tokens.weight
    assert tied.encoder.embed_tokens.weight is not tied.decoder.embed_tokens.weight
    assert build().decoder.output_projection.weight is not build().decoder.embed_tokens.weight


def test_embeddings_that_cannot_be_shared_are_refused():
    class Two:
        source_dictionary, target_dictionary = dictionary(), dictionary("klm")

    with pytest.raises(ValueError, match="14 source and 7 target types.*--joined-dictionary"):
        build(Two, share_all_embeddings=True)
    with pytest.raises(ValueError, match="one embedding dimension .* got 6 and 7"):
        build(share_all_embeddings=True, decoder_embed_dim=7)


def test_dropout_acts_in_training_only():
    options = {"dropout": 0.5, "encoder_layers": 2, "decoder_layers": 2}
    model = build(**options)
    source = batch(SENTENCES)
    torch.testing.assert_close(*(model(source, None, TOKENS)[0] for _ in range(2)), atol=0, rtol=0)
    model.train()
    assert not torch.equal(*(model(source, None, TOKENS)[0] for _ in range(2)))


def test_dropout_acts_between_the_layers_of_the_decoder():
    model = build(dropout=0.5, decoder_layers=2)
    encoder_out = model.encoder(batch(SENTENCES))
    model.train()
    model.decoder.dropout.p = 0.0
    features = [model.decoder.extract_features(TOKENS, encoder_out)[0] for _ in range(2)]
    assert not torch.equal(*features)


def test_layer_norm_normalises():
    model = build(layer_norm=True)
    features, _ = model.extract_features(batch(SENTENCES), None, TOKENS)
    torch.testing.assert_close(features.mean(-1), torch.zeros(4, 5), atol=1e-5, rtol=0)
    assert isinstance(model.encoder.norm, torch.nn.LayerNorm)


def test_it_learns_to_copy():
    sizes = {"encoder_embed_dim": 16, "decoder_embed_dim": 16, "decoder_hidden_size": 32}
    model = build(encoder_hidden_size=16, dropout=0.0, **sizes).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(120):
        words = torch.randint(4, 10, (24, 3))
        ends = torch.full((24, 1), EOS)
        source, inputs = torch.cat([words, ends], 1), torch.cat([ends, words], 1)
        logits, _ = model(source, None, inputs)
        loss = F.cross_entropy(logits.flatten(0, 1), source.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2  # at first 2.6
