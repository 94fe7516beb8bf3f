"""One denoiser, three parts to play: base, parent, policy. Knows no pair, loss or sampler.

There is one copy of the base weights: the base is the adapters switched off, the parent a second,
frozen adapter beside the one that is trained. The only door to peft.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import Tensor, nn

from sail import backbones, distributed
from sail.config import Lora
from sail.files import publish, sha256_file
from sail.memory import AtOnce, is_out_of_memory, loading
from sail.model_ref import ModelRef
from sail.progress import Progress
from sail.runfolder import ADAPTER_FILE

Part = Literal["base", "parent", "policy"]
MAX_WHOLE = 512
"""Inputs or outputs of a layer up to which learning its weight whole is faster on a CPU."""
NOT_UNDERSTOOD = ("use_rslora", "use_dora", "alpha_pattern")
"""Of a LoRA's metadata: with these it is of another strength than rank and alpha say."""
Weights = dict[str, Tensor]
"""An adapter's, by name."""


class Policy:
    """A backbone with its adapters. Without any adapter all three parts are the base."""

    def __init__(self, backbone: backbones.Backbone) -> None:
        self.backbone = backbone
        self.at_once = AtOnce()
        self._folds = True
        self._configs: dict[str, LoraConfig] = {}
        self._layers: list[BaseTunerLayer] = []
        self._playing: tuple[str, float] = ("policy", 1.0)
        self._adapter: tuple[str, float] | None = None
        """The adapter that the layers have set, and its strength, also while it is switched off."""

    def add_trainable(self, lora: Lora, *, noise_seed: int) -> None:
        """A new policy adapter that changes nothing yet (its B matrices are 0).

        ValueError where a target is the name of no module.
        """
        targets = list(lora.targets or self.backbone.lora_targets)
        if lora.targets:
            self._require_modules(targets)
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha or lora.rank, target_modules=targets)
        # The CPU's alone: peft draws A there and then moves it.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(noise_seed)
            self._inject("policy", config)

    def _require_modules(self, targets: Sequence[str]) -> None:
        """peft leaves out what it does not find, as long as it finds another."""
        names = [f".{name}" for name, _ in self.backbone.denoiser.named_modules()]
        missing = [target for target in targets if not any(name.endswith(f".{target}") for name in names)]
        if missing:
            ends = {".".join(name.split(".")[-count:]) for name in names for count in (1, 2)}
            near = ", ".join(get_close_matches(missing[0], ends))
            raise ValueError(
                f"lora.targets: The model's {self.backbone.denoiser.__class__.__name__} has no module "
                f"{' or '.join(missing)}.{f' Is it one of {near}?' if near else ''}"
            )

    def load(self, part: str, folder: Path) -> None:
        """Read an adapter from `folder`, to be played under the name `part`.

        ValueError where it is of another model, or has a value that is not finite.
        """
        try:
            weights, metadata = self.backbone.load_lora(folder)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / ADAPTER_FILE} cannot be read as a LoRA: {error}.") from error
        bad = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
        if bad:
            raise ValueError(f"{folder / ADAPTER_FILE} is broken: {bad[0]} has values that are not finite.")
        rank = next((tensor.shape[0] for name, tensor in weights.items() if ".lora_A." in name), None)
        if rank is None:
            raise ValueError(f"{folder / ADAPTER_FILE} is no LoRA as diffusers and peft write them.")
        if special := [what for what in NOT_UNDERSTOOD if metadata.get(what)]:
            raise ValueError(f"{folder / ADAPTER_FILE} has {special[0]}, by which nothing here goes.")
        targets = sorted({name.split(".lora_")[0] for name in weights})
        config = LoraConfig(r=rank, lora_alpha=metadata.get("lora_alpha", rank), target_modules=targets)
        self._inject(part, config)
        try:
            outcome = set_peft_model_state_dict(self.backbone.denoiser, weights, adapter_name=part)
        except RuntimeError as error:
            what, *faults = str(error).split("\n")
            if not what.startswith("Error(s) in loading state_dict"):
                raise
            raise ValueError(f"{folder} does not fit this model: {faults[0].strip()}") from error
        absent = [key for key in outcome.missing_keys if ".lora_" in key and f".{part}." in key]
        if absent:
            raise ValueError(f"{folder / ADAPTER_FILE} lacks {absent[0]}, so it is no whole LoRA.")
        if outcome.unexpected_keys:
            raise ValueError(f"{folder} does not fit this model: no place for {outcome.unexpected_keys[0]}.")

    def _inject(self, part: str, config: LoraConfig) -> None:
        with warnings.catch_warnings():
            # That a second adapter is added is what we want.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(config, self.backbone.denoiser, adapter_name=part)
        self._configs[part] = config
        modules = self.backbone.denoiser.modules()
        self._layers = [module for module in modules if isinstance(module, BaseTunerLayer)]
        self._adapter = None
        for layer in self._layers:
            # To float32, and autocast back again: the same bits, and two copies less of every input.
            layer.cast_input_dtype_enabled = False
        for name, parameter in self.backbone.denoiser.named_parameters():
            if f".{part}." in name:
                # A step of 1e-5 would vanish in bf16.
                parameter.data = parameter.data.float()
        self.play("policy")

    def parameters(self) -> dict[str, nn.Parameter]:
        """The policy adapter's weights by name, in a fixed order."""
        named = self.backbone.denoiser.named_parameters()
        return {name: parameter for name, parameter in named if ".lora_" in name and ".policy." in name}

    def play(self, part: str, *, strength: float = 1.0) -> None:
        """Have the denoiser act as `part` from now on; only the policy takes gradients.

        `strength` is a factor on what the adapter adds to the base.
        """
        self._playing = part, strength
        is_adapter = part in self._configs
        for layer in self._layers:
            # What enable_adapters() does, but for a walk over all weights, twice in every step.
            layer._disable_adapters = not is_adapter
        if not is_adapter or self._adapter == self._playing:
            return
        self._adapter = self._playing
        for layer in self._layers:
            layer.set_adapter(part, inference_mode=part != "policy")
            layer.set_scale(part, strength)

    @contextmanager
    def acting_as(self, part: Part) -> Iterator[None]:
        """As `part`, without gradients; as what it was before again afterwards."""
        before = self._playing
        self.play(part)
        try:
            with torch.no_grad():
                yield
        finally:
            part_before, strength_before = before
            self.play(part_before, strength=strength_before)

    @contextmanager
    def folded(self, *, learning: bool = False) -> Iterator[None]:
        """What is played, with its adapter added to the weights that it adapts, and no layers beside them.

        Only in float32: in bfloat16 most of what an adapter adds is less than the last bit of a weight.
        `learning`: gradients reach the adapter through the sums, which pays on a CPU and for layers where the
        gradient of a weight is cheap; the others stay as they are. The backward pass belongs inside, and no
        other part is played there.
        """
        part, _ = self._playing
        layers = [layer for layer in self._layers if part in layer.lora_A] if part in self._configs else []
        assert not any(layer.merged for layer in layers), "it is folded already"
        if learning:
            layers = [layer for layer in layers if _is_cheap_to_learn_whole(layer.get_base_layer())]
        own = [layer.get_base_layer()._parameters["weight"] for layer in layers]
        if not self._folds or any(weight.dtype != torch.float32 for weight in own):
            layers, own = [], []
        try:
            with torch.set_grad_enabled(learning):
                sums = [
                    weight + layer.get_delta_weight(part) for layer, weight in zip(layers, own, strict=True)
                ]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # There is no place for these weights twice. With the adapter beside them there may be.
            self._folds, layers, own, sums = False, [], [], []
        try:
            for layer, whole in zip(layers, sums, strict=True):
                layer.get_base_layer()._parameters["weight"] = whole
                # By this peft knows that the base layer is all there is to ask.
                layer.merged_adapters.append(part)
            yield
        finally:
            for layer, weight in zip(layers, own, strict=True):
                layer.get_base_layer()._parameters["weight"] = weight
                layer.merged_adapters.clear()

    def state(self) -> Weights:
        """What the policy adapter is now, for `put_between`."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters().items()}

    def put_between(self, begun: Weights, ended: Weights, share: float) -> None:
        """Put the policy adapter so far on the straight way from `begun` (0) to `ended` (1)."""
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(torch.lerp(begun[name], ended[name], share))

    def weights(self) -> dict[str, Tensor]:
        """The policy adapter under peft's names."""
        return get_peft_model_state_dict(self.backbone.denoiser, adapter_name="policy")

    def save(self, folder: Path) -> str:
        """Publish the policy adapter as `folder`/pytorch_lora_weights.safetensors; return its sha256."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self._configs["policy"]
        metadata = {
            "r": config.r,
            "lora_alpha": config.lora_alpha,
            "target_modules": sorted(config.target_modules),
        }
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.weights().items()}
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".lora.", suffix=".new") as scratch:
            written = self.backbone.save_lora(Path(scratch), weights, metadata)
            content = canonical(written.read_bytes())
            publish(folder / ADAPTER_FILE, lambda beside: beside.write_bytes(content) and None)
        return sha256_file(folder / ADAPTER_FILE)


def policy_of(model: ModelRef, progress: Progress | None = None) -> Policy:
    """Load what is to begin with. Together: a stop that one process hears meanwhile ends all.

    MemoryError where the model does not fit.
    """
    with distributed.together(), loading():
        return Policy(backbones.load(model, told=progress.download if progress else None))


def tell_cut(policy: Policy, prompts: Collection[str], progress: Progress) -> int:
    """Say how many prompts the model does not read to their end, where there are any."""
    cut = policy.backbone.count_cut(prompts)
    if cut and distributed.is_main():
        progress.note(cut_in_words(cut))
    return cut


def cut_in_words(cut: int) -> str:
    which = "1 prompt is" if cut == 1 else f"{cut} prompts are"
    return f"{which} longer than the model reads: what comes after that is cut off."


def _is_cheap_to_learn_whole(layer: nn.Module) -> bool:
    """Whether the gradient of its weight takes less time than two thin layers beside it do (measured)."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    pointwise = weight[0, 0].numel() == 1
    return weight.device.type == "cpu" and pointwise and min(weight.shape[:2]) <= MAX_WHOLE


def canonical(safetensors: bytes) -> bytes:
    """The same file with its header in sorted order.

    safetensors writes metadata in an order of chance, and an adapter is known by the hash of its bytes.
    """
    length = int.from_bytes(safetensors[:8], "little")
    header = json.dumps(
        json.loads(safetensors[8 : 8 + length]), sort_keys=True, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + safetensors[8 + length :]
