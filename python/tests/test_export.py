"""Exported steps against eager PyTorch, chained, and what is written."""

import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pam_export import VerificationError, export_forward, export_train_step

from examples import batch, mlp


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_steps(path, bindings, batches, **extra):
    """Chains the file's steps over ``batches`` and returns each step's outputs."""
    run = session(path)
    names = [o.name for o in run.get_outputs()]
    state, results = {}, []
    for x, y in batches:
        feeds = {"x": x.numpy(), "y": y.numpy(), **state, **extra}
        found = dict(zip(names, run.run(names, feeds)))
        state = {old: found[new] for new, old in bindings.items()}
        results.append(found)
    return results


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    "maximize": lambda p: torch.optim.SGD(p, lr=0.1, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, eps=1e-4, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, eps=1e-4, weight_decay=0.1),
    "adamw_betas": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.5, 0.7), eps=1e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_chained_steps_equal_eager_pytorch(name, tmp_path):
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    batches = [batch() for _ in range(3)]
    step = export_train_step(
        model, F.cross_entropy, optimizer, batches[0], tmp_path / "step.onnx", verify=False
    )
    results = run_steps(step.path, step.bindings, batches)
    for (x, y), found in zip(batches, results):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(found["loss"], loss.item(), rtol=1e-5)
        for key, value in model.named_parameters():
            np.testing.assert_allclose(
                found[f"new.{key}"], value.detach().numpy(), rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("name", ["momentum", "dampening", "adamw"])
def test_an_optimizer_with_history_goes_on_where_it_was(name, tmp_path):
    model = mlp()
    optimizer = OPTIMIZERS[name](model.parameters())
    x, y = batch()
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    before = copy.deepcopy(model.state_dict())
    export_train_step(model, F.cross_entropy, optimizer, (x, y), tmp_path / "step.onnx")
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_lr_is_an_input_with_the_optimizers_value_as_default(tmp_path):
    model = mlp()
    step = export_train_step(
        model,
        F.cross_entropy,
        torch.optim.SGD(model.parameters(), lr=0.25),
        batch(),
        tmp_path / "step.onnx",
    )
    proto = onnx.load(step.path)
    lr = next(i for i in proto.graph.initializer if i.name == "lr")
    assert onnx.numpy_helper.to_array(lr) == np.float32(0.25)
    x, y = batch()
    still = run_steps(step.path, step.bindings, [(x, y)], lr=np.zeros((), np.float32))[0]
    np.testing.assert_array_equal(still["new.0.weight"], model[0].weight.detach().numpy())


@pytest.mark.parametrize("eps", [1e-8, 1e-10])
def test_a_small_epsilon_stays(eps, tmp_path):
    # Rows of the embedding that the batch does not hold have no gradient: without epsilon they were 0 / 0.
    model = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(32, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=eps)
    data = (torch.randint(0, 50, (4, 4)), torch.randint(0, 3, (4,)))
    step = export_train_step(model, F.cross_entropy, optimizer, data, tmp_path / "step.onnx")
    values = [onnx.numpy_helper.to_array(i) for i in onnx.load(step.path).graph.initializer]
    assert any(v.size == 1 and v == np.float32(eps) for v in values)


def test_names_roles_and_metadata(tmp_path):
    model = mlp()
    step = export_train_step(
        model,
        F.cross_entropy,
        torch.optim.AdamW(model.parameters(), lr=0.01),
        batch(),
        tmp_path / "step.onnx",
    )
    proto = onnx.load(step.path)
    inputs = [i.name for i in proto.graph.input]
    assert inputs[:7] == ["x", "y", "lr", "0.weight", "0.bias", "2.weight", "2.bias"]
    assert inputs[-1] == "step" and "0.weight.exp_avg" in inputs
    outputs = [o.name for o in proto.graph.output]
    assert outputs[:3] == ["loss", "logits", "new.0.weight"] and outputs[-1] == "new.step"
    defaults = {i.name for i in proto.graph.initializer}
    assert set(inputs) - defaults == {"x", "y"}
    metadata = {p.key: p.value for p in proto.metadata_props}
    assert metadata["pam.loss"] == "loss"
    assert json.loads(metadata["pam.bindings"])["new.0.weight"] == "0.weight"
    produced = {o for n in proto.graph.node for o in n.output}
    assert set(json.loads(metadata["pam.gradients"]).values()) <= produced
    roles = {}
    for node in proto.graph.node:
        entries = {p.key: p.value for p in node.metadata_props}
        assert set(entries) == {"pam.role", "pam.component"}
        roles.setdefault(entries["pam.role"], set()).add(node.op_type)
    assert set(roles) == {"forward", "loss", "backward", "optimizer"}
    assert roles["forward"] <= {"Gemm", "Relu", "Transpose"}
    assert "LogSoftmax" in roles["loss"] and "Sqrt" in roles["optimizer"]


def components_of(path):
    """(role, component) -> operator types."""
    found = {}
    for node in onnx.load(path).graph.node:
        entries = {p.key: p.value for p in node.metadata_props}
        key = entries["pam.role"], entries["pam.component"]
        found.setdefault(key, set()).add(node.op_type)
    return found


def test_components_of_a_norm_that_pytorch_writes_out(tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.RMSNorm(8), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    export_train_step(model, F.cross_entropy, optimizer, batch(), tmp_path / "step.onnx")
    found = components_of(tmp_path / "step.onnx")
    assert {"ReduceMean", "Sqrt", "Mul"} <= found["forward", "norm"]
    assert {"Mul", "ReduceSum"} <= found["backward", "norm"]
    for role in ("forward", "backward"):
        assert not found.get((role, "other"), set()) & {"Mul", "Div", "Pow", "Sqrt", "MatMul"}


def test_transformer_and_lstm_layers(tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.lstm = layer, nn.LSTM(8, 4, batch_first=True)

        def forward(self, x):
            return self.lstm(self.layer(x))[0]

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    example = torch.randn(2, 3, 8), torch.randn(2, 3, 4)
    export_train_step(model, F.mse_loss, optimizer, example, tmp_path / "step.onnx")


def test_batchnorm_statistics_are_state_and_masks_are_constants(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(6)
            self.linear = nn.Linear(6, 3)
            self.register_buffer("mask", torch.ones(6))

        def forward(self, x):
            return self.linear(self.norm(x) * self.mask)

    model = Net()
    step = export_train_step(
        model,
        F.cross_entropy,
        torch.optim.SGD(model.parameters(), lr=0.1),
        batch(),
        tmp_path / "step.onnx",
    )
    assert step.bindings["new.norm.running_mean"] == "norm.running_mean"
    assert step.bindings["new.norm.num_batches_tracked"] == "norm.num_batches_tracked"
    assert "new.mask" not in step.bindings
    assert torch.equal(model.norm.running_mean, torch.zeros(6)), "the model must stay as it was"


CONVOLUTIONS = {
    "plain": dict(in_channels=4, out_channels=6, kernel_size=3),
    "stride leaves a rest": dict(in_channels=4, out_channels=6, kernel_size=3, stride=2, padding=1),
    "grouped": dict(in_channels=4, out_channels=6, kernel_size=3, groups=2, padding=1),
    "depthwise": dict(in_channels=4, out_channels=4, kernel_size=5, groups=4, padding=2),
    "dilated": dict(in_channels=4, out_channels=6, kernel_size=(3, 2), dilation=2, stride=(2, 1)),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_gradients(name, transposed, tmp_path):
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    options = dict(CONVOLUTIONS[name])
    if transposed and options.get("stride") == 2:
        options["output_padding"] = 1
    model = nn.Sequential(nn.Conv2d(2, 4, 1), kind(**options), nn.Tanh())
    x = torch.randn(2, 2, 10, 10)
    y = torch.randn_like(model(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    export_train_step(model, F.mse_loss, optimizer, (x, y), tmp_path / "step.onnx")


LAYERS = {
    "max_pool": nn.MaxPool2d(3, 2, 1),
    "avg_pool": nn.AvgPool2d(2),
    "nearest": nn.Upsample(scale_factor=2, mode="nearest"),
    "nearest_uneven": nn.Upsample(size=(11, 7), mode="nearest"),
    "nearest_exact": nn.Upsample(size=(11, 7), mode="nearest-exact"),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear_corners": nn.Upsample(size=(11, 7), mode="bilinear", align_corners=True),
    "bicubic": nn.Upsample(scale_factor=1.5, mode="bicubic"),
    "avg_pool_padded": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive_avg_pool": nn.AdaptiveAvgPool2d(4),
    "group_norm": nn.GroupNorm(2, 4),
    "instance_norm": nn.InstanceNorm2d(4, affine=True),
    "silu": nn.SiLU(),
    "gelu_tanh": nn.GELU("tanh"),
    "softplus": nn.Softplus(),
    "elu": nn.ELU(),
    "leaky_relu": nn.LeakyReLU(0.1),
    "prelu": nn.PReLU(),
    "hardswish": nn.Hardswish(),
    "mish": nn.Mish(),
    "sigmoid": nn.Sigmoid(),
    "softmax": nn.Softmax(1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), copy.deepcopy(LAYERS[name]), nn.Conv2d(4, 1, 1))
    x = torch.randn(2, 2, 8, 8)
    y = torch.randn_like(model(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    export_train_step(model, F.mse_loss, optimizer, (x, y), tmp_path / "step.onnx")


@pytest.mark.parametrize("opset", [18, 20, 21, 23])
def test_opsets(opset, tmp_path):
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), eps=1e-4)
    path = tmp_path / "step.onnx"
    export_train_step(model, F.cross_entropy, optimizer, batch(), path, opset=opset)
    assert onnx.load(path).opset_import[0].version == opset


def test_forward_export(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    x, _ = batch()
    path = export_forward(model, x, tmp_path / "forward.onnx")
    assert model.training
    (found,) = session(path).run(["logits"], {"x": x.numpy()})
    np.testing.assert_allclose(found, model.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-6)


def test_a_wrong_result_is_noticed(tmp_path, monkeypatch):
    from pam_export.rules import SgdRule

    monkeypatch.setattr(SgdRule, "update", lambda self, p, g, state, lr, step: (p + lr * g, {}))
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(VerificationError, match="new.0.weight: relative error"):
        export_train_step(model, F.cross_entropy, optimizer, batch(), tmp_path / "step.onnx")
    assert not (tmp_path / "step.onnx").exists()


def test_losses_with_weights_and_tensors_fixed_to_float32(tmp_path):
    weight = torch.tensor([0.2, 1.0, 2.0])
    losses = (
        nn.CrossEntropyLoss(weight=weight, ignore_index=1, label_smoothing=0.1),
        lambda logits, y: F.cross_entropy(logits, y, weight=weight, reduction="sum"),
    )
    for loss in losses:
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        export_train_step(model, loss, optimizer, batch(), tmp_path / "step.onnx")


def test_frozen_parameters_are_constants(tmp_path):
    model = mlp()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = export_train_step(model, F.cross_entropy, optimizer, batch(), tmp_path / "step.onnx")
    assert "new.0.weight" not in step.bindings and "new.0.bias" in step.bindings


def test_several_inputs_targets_and_outputs(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(4, 2)

        def forward(self, left, right):
            return self.a(left), self.b(right)

    model = Two()
    step = export_train_step(
        model,
        lambda found, kind, box: F.cross_entropy(found[0], kind) + F.mse_loss(found[1], box),
        torch.optim.SGD(model.parameters(), lr=0.1),
        (
            {"left": torch.randn(5, 6), "right": torch.randn(5, 4)},
            {"kind": torch.randint(0, 3, (5,)), "box": torch.randn(5, 2)},
        ),
        tmp_path / "step.onnx",
        output_names=["classes", "boxes"],
    )
    assert list(step.inputs) == ["left", "right", "kind", "box"]
    assert list(step.expected)[:3] == ["loss", "classes", "boxes"]


def test_names_that_are_no_identifiers_are_kept(tmp_path):
    """Names with spaces, quotes, slashes and letters beyond ASCII reach the file as they are."""
    torch.manual_seed(0)
    names = ['we ird/"x"', "it's", "läufer:0"]
    model = nn.Sequential()
    for name, layer in zip(names, [nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)]):
        model.add_module(name, layer)
    example = {"in put/x": torch.randn(8, 6)}, {"läbel,y": torch.randint(0, 3, (8,))}
    optimizer = torch.optim.AdamW(model.parameters())
    step = export_train_step(
        model, F.cross_entropy, optimizer, example, tmp_path / "s.onnx", output_names=['out "1"']
    )
    inputs = {i.name for i in onnx.load(step.path).graph.input}
    assert {"in put/x", "läbel,y", *(f"{n}.weight" for n in names)} <= inputs


def test_models_may_differentiate(tmp_path):
    """The derivative of a network by its input is part of the forward pass, as in physics-informed ones."""

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1, bias=False))

        def forward(self, x):
            x = x.detach().requires_grad_()
            return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]

    torch.manual_seed(0)
    model = Slope()
    example = torch.randn(4, 2), torch.randn(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = export_train_step(model, F.mse_loss, optimizer, example, tmp_path / "slope.onnx")
    assert len(step.bindings) == 3


class MaskedDecoder(nn.Module):
    """nn.Transformer whose mask says nothing of being causal, so that PyTorch would look at its values."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.transformer(x, x, tgt_mask=mask)


class ScatterMean(nn.Module):
    """The mean of rows that go to the same place, with a place that none goes to."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        index = torch.tensor([0, 2, 0, 0])[:, None].expand(-1, 4)
        rows = self.linear(x)
        alone = torch.ones(3, 4).scatter_reduce(0, index, rows, "mean", include_self=False)
        return alone + torch.ones(3, 4).scatter_reduce(0, index, rows, "mean")


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(4, 4, 3)

    def forward(self, x):
        return self.layer(x, torch.tanh(x))


class ChannelsLast(nn.Module):
    """A linear layer between convolutions, and pooling, over permuted axes, as in ConvNeXt and Swin."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 3, 2), nn.Conv2d(4, 2, 2)
        self.linear, self.pool = nn.Linear(3, 4), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        x = self.linear(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.last(x).flatten(1) + self.pool(x).sum()


LACKING = {
    "channels_last": (ChannelsLast, (2, 1, 4, 4)),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), (3, 4)),
    "replicated": (lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReplicationPad2d((1, 2, 0, 3))), (2, 1, 4, 4)),
    "shrinkage": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Softshrink(0.2), nn.Hardshrink(0.1)), (3, 4)),
    "averages": (
        lambda: nn.Sequential(
            nn.Conv3d(1, 2, 2), nn.AvgPool3d(2, stride=1, padding=1, count_include_pad=False)
        ),
        (2, 1, 4, 4, 4),
    ),
    "bilinear": (Bilinear, (3, 4)),
    "masked": (MaskedDecoder, (2, 3, 8)),
    "scattered": (ScatterMean, (4, 4)),
}


@pytest.mark.parametrize("name", LACKING)
def test_layers_that_onnx_lacks_are_written_in_what_it_has(name, tmp_path):
    """The export itself compares two steps with eager PyTorch."""
    torch.manual_seed(0)
    make, shape = LACKING[name]
    model, x = make(), torch.randn(*shape)
    example = x, torch.randn_like(model(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = export_train_step(model, F.mse_loss, optimizer, example, tmp_path / "layer.onnx")
    onnx.checker.check_model(str(step.path))
