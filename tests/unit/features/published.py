"""DINOv2 and DINOv3 as transformers builds them, cut down, with random weights, in the formats that people have."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewshot.features import torchvision_ops

torchvision_ops.ensure()  # transformers imports torchvision

import transformers  # noqa: E402
from timm.models.eva import Eva  # noqa: E402
from timm.models.eva import checkpoint_filter_fn as dinov3_to_timm  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from timm.models.vision_transformer import checkpoint_filter_fn as dinov2_to_timm  # noqa: E402

CLASSES = {
    "dinov2": (transformers.Dinov2Config, transformers.Dinov2Model),
    "dinov2_with_registers": (transformers.Dinov2WithRegistersConfig, transformers.Dinov2WithRegistersModel),
    "dinov3_vit": (transformers.DINOv3ViTConfig, transformers.DINOv3ViTModel),
}
GRID = 4
"""Patches along the side of the images whose positions the cut-down models hold."""


@dataclass
class Published:
    """One cut-down model, and its folder as transformers saves it."""

    kind: str
    folder: Path
    model: torch.nn.Module
    registers: int
    patch: int
    state: dict[str, Tensor] = field(init=False)

    def __post_init__(self):
        self.state = load_file(self.folder / "model.safetensors")

    def features(self, images: Tensor) -> Tensor:
        """What transformers gives for grey images ``[B, H, W]``: ``[B, patches, dim]``."""
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        with torch.inference_mode():
            tokens = self.model((images[:, None].expand(-1, 3, -1, -1) - mean) / std).last_hidden_state
        return tokens[:, 1 + self.registers :]

    def meta(self) -> dict[str, Tensor]:
        """The parameters in Meta's naming, written down independently of the reader."""
        third = self.kind == "dinov3_vit"
        meta = {}
        for name, value in self.state.items():
            parts = name.split(".")
            kind = parts[-1]
            if parts[0] == "embeddings":
                renamed = {
                    "position_embeddings": "pos_embed",
                    "patch_embeddings": f"patch_embed.proj.{kind}",
                    "register_tokens": "storage_tokens" if third else "register_tokens",
                }
                meta[renamed.get(parts[1], parts[1])] = value
            elif parts[0] in ("layernorm", "norm"):
                meta[f"norm.{kind}"] = value
            else:
                block, inner = (parts[1], parts[2:-1]) if parts[0] == "layer" else (parts[2], parts[3:-1])
                names = {
                    "attention.output.dense": "attn.proj",
                    "attention.o_proj": "attn.proj",
                    "layer_scale1": "ls1",
                    "layer_scale2": "ls2",
                    "mlp.up_proj": "mlp.fc1",
                    "mlp.down_proj": "mlp.fc2",
                    "mlp.weights_in": "mlp.w12",
                    "mlp.weights_out": "mlp.w3",
                }
                inner = names.get(".".join(inner), ".".join(inner))
                meta[f"blocks.{block}.{inner}.{'gamma' if kind == 'lambda1' else kind}"] = value
        queries = [name for name in meta if name.endswith((".query.weight", ".q_proj.weight"))]
        for name in queries:
            block = name.partition(".attention.")[0]
            old = name.rpartition(".")[0]
            letters = ("q_proj", "k_proj", "v_proj") if third else ("query", "key", "value")
            olds = [old.replace(letters[0], letter) for letter in letters]
            meta[f"{block}.attn.qkv.weight"] = torch.cat([meta.pop(f"{old}.weight") for old in olds])
            biases = [meta.pop(f"{old}.bias", None) for old in olds]
            if third:  # Meta's layer has a bias of the keys and multiplies it by zero
                biases[1] = torch.full_like(biases[0], 7.0)
                mask = torch.ones(3, len(biases[0]))
                mask[1] = 0
                meta[f"{block}.attn.qkv.bias_mask"] = mask.flatten()
            meta[f"{block}.attn.qkv.bias"] = torch.cat(biases)
        if third:
            meta["rope_embed.periods"] = torch.ones(16, dtype=torch.bfloat16)
        return meta

    def timm(self) -> dict[str, Tensor]:
        """The parameters in timm's naming, by timm's own filters of Meta's checkpoints."""
        dim, depth = self.model.config.hidden_size, self.model.config.num_hidden_layers
        if self.kind == "dinov3_vit":
            return dinov3_to_timm(self.meta(), Eva(embed_dim=dim, depth=depth, num_heads=2))
        like = {"img_size": GRID * 14, "patch_size": 14, "embed_dim": dim, "depth": 1, "num_heads": 2}
        model = VisionTransformer(**like, reg_tokens=self.registers, no_embed_class=self.registers > 0)
        return {name: value.contiguous() for name, value in dinov2_to_timm(self.meta(), model).items()}

    def write(self, form: str, folder: Path) -> Path:
        """One of the forms in which such models lie on people's disks."""
        folder.mkdir(parents=True, exist_ok=True)
        if form == "folder":
            return self.folder
        if form == "sharded folder":
            self.model.save_pretrained(folder / "sharded", max_shard_size="200KB")
            assert len(list((folder / "sharded").glob("*.safetensors"))) > 2
            return folder / "sharded"
        if form == "timm folder":
            save_file(self.timm(), folder / "model.safetensors")
            (folder / "config.json").write_text(json.dumps({"architecture": "vit_small_patch14_dinov2"}))
            return folder
        path = folder / ("weights.safetensors" if form.endswith("safetensors") else "weights.pth")
        if form == "huggingface safetensors":
            shutil.copy(self.folder / "model.safetensors", path)
        elif form == "meta safetensors":
            save_file(self.meta(), path)
        elif form == "timm safetensors":
            save_file(self.timm(), path)
        elif form == "meta pth":
            torch.save(self.meta(), path)
        else:
            assert form == "training pth"
            torch.save(self.training_checkpoint(), path)
        return path

    def training_checkpoint(self) -> dict[str, object]:
        """As DINOv2's training writes it: student and teacher, their heads, blocks in chunks."""
        state = {}
        for name, value in self.meta().items():
            if name.startswith("blocks."):
                index = int(name.split(".")[1])
                name = name.replace("blocks.", f"blocks.{index // 2}.", 1)
            state[f"teacher.backbone.{name}"] = value
            state[f"student.backbone.{name}"] = torch.zeros_like(value)
        state["teacher.dino_head.mlp.0.weight"] = torch.ones(2, 2)
        return {"model": state, "iteration": 7}


def publish(kind: str, folder: Path, *, dim: int = 128, depth: int = 3, **settings) -> Published:
    """Build such a model and save it the way transformers does."""
    config_class, model_class = CLASSES[kind]
    patch = 16 if kind == "dinov3_vit" else 14
    settings = {"num_attention_heads": dim // 64, "image_size": GRID * patch, "patch_size": patch, **settings}
    if kind == "dinov3_vit":
        settings = {"num_register_tokens": 4, "intermediate_size": 4 * dim, **settings}
    model = model_class(config_class(hidden_size=dim, num_hidden_layers=depth, **settings)).eval()
    generator = torch.Generator().manual_seed(dim)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "lambda" in name or ("norm" in name and name.endswith("weight")) else 0.0
            width = 0.5 if "position" in name or "token" in name else 0.1
            parameter.copy_(centre + width * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return Published(kind, folder, model, getattr(model.config, "num_register_tokens", 0), patch)
