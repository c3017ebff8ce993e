"""Encoders that are published in the format of the library transformers, which is not needed to run them."""

from __future__ import annotations

from spahgc.encoders._card import CLASS_AND_MEAN, CLASS_TOKEN, HALF, RENAMED, EncoderCard, HubFile

OWKIN = "Owkin non-commercial"

HIBOU_MEAN = (0.7068, 0.5755, 0.722)
HIBOU_STD = (0.195, 0.2316, 0.1816)
HIBOU_CITATION = "Nechaev et al., Hibou: A Family of Foundational Vision Transformers for Pathology, arXiv 2406.05074"
HIBOU_VERIFIED = f"{RENAMED}, nor were their names: they are those of the DINOv2 of transformers with registers"

CARDS = (
    EncoderCard(
        name="phikon",
        timm_name="vit_base_patch16_224",
        timm_kwargs={"num_classes": 0, "norm_layer": "LayerNorm with eps 1e-12"},
        weights=HubFile("owkin/phikon", "pytorch_model.bin", "057cc0295895c2df3dd7681a89680da6015cbefe"),
        naming="transformers ViT",
        dim=768,
        input_px=224,
        mpp=0.5,
        interpolation="bilinear",
        pooling=CLASS_TOKEN,
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
        weights=HubFile("owkin/phikon-v2", "model.safetensors", "2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd"),
        naming="transformers DINOv2",
        dim=1024,
        input_px=224,
        mpp=0.5,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
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
        weights=HubFile("kaiko-ai/midnight", "model.safetensors", "adc6b15679c981cce6f9b018bbad09d16eeeda9f"),
        naming="transformers DINOv2",
        dim=3072,
        input_px=224,
        mpp=0.5,
        mean=HALF,
        std=HALF,
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
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "SiLU",
        },
        weights=HubFile("histai/hibou-b", "model.safetensors", "7fdc8cce365ebfd9e7e60ee6ee9a8d4d59388f3c"),
        naming="transformers DINOv2",
        dim=768,
        input_px=224,
        mpp=0.5,
        mean=HIBOU_MEAN,
        std=HIBOU_STD,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
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
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "SiLU",
        },
        weights=HubFile("histai/hibou-L", "model.safetensors", "31a3b9fee16554c8552cb643d311733bce8faf7c"),
        naming="transformers DINOv2",
        dim=1024,
        input_px=224,
        mpp=0.5,
        mean=HIBOU_MEAN,
        std=HIBOU_STD,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
        licence="Apache-2.0",
        gated=True,
        commercial_use=True,
        citation=HIBOU_CITATION,
        verified=HIBOU_VERIFIED,
    ),
)
