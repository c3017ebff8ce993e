"""Encoders of the Mahmood lab."""

from __future__ import annotations

from spahgc.encoders._card import ATTENTION, CLASS_TOKEN, NOT_THE_WEIGHTS, RENAMED, EncoderCard, HubFile

CC_BY_NC_ND = "CC-BY-NC-ND-4.0"
CONCH_MPP = 0.5 * 512 / 448
"""The authors cut patches of 512 pixels at 0.5 um and resize them to the network's 448."""

CARDS = (
    EncoderCard(
        name="uni",
        timm_name="vit_large_patch16_224",
        timm_kwargs={"init_values": 1e-5, "dynamic_img_size": True, "num_classes": 0},
        weights=HubFile("MahmoodLab/UNI", "pytorch_model.bin", "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0"),
        dim=1024,
        input_px=224,
        mpp=0.5,
        interpolation="bilinear",
        pooling=CLASS_TOKEN,
        precision="fp16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Chen et al., Towards a general-purpose foundation model for computational pathology, "
        "Nature Medicine 2024",
        verified=NOT_THE_WEIGHTS,
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
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "SiLU",
            "reg_tokens": 8,
            "dynamic_img_size": True,
        },
        weights=HubFile("MahmoodLab/UNI2-h", "pytorch_model.bin", "d517a8dd47902dd7c308b3c36f63bce47e7b9a43"),
        dim=1536,
        input_px=224,
        mpp=0.5,
        interpolation="bilinear",
        pooling=CLASS_TOKEN,
        precision="bf16",
        licence=CC_BY_NC_ND,
        gated=True,
        commercial_use=False,
        citation="Chen et al., Towards a general-purpose foundation model for computational pathology, "
        "Nature Medicine 2024",
        verified=NOT_THE_WEIGHTS,
    ),
    EncoderCard(
        name="conch",
        timm_name="vit_base_patch16_224",
        timm_kwargs={"img_size": 448, "num_classes": 0},
        weights=HubFile("MahmoodLab/CONCH", "pytorch_model.bin", "f9ca9f877171a28ade80228fb195ac5d79003357"),
        naming="CONCH",
        dim=512,
        input_px=448,
        mpp=CONCH_MPP,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        interpolation="bicubic",
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
        naming="CONCH v1.5",
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
)
