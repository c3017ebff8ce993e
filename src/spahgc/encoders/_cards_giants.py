"""Encoders of Paige, Microsoft and Bioptimus: large vision transformers with gated linear units."""

from __future__ import annotations

from spahgc.encoders._card import CLASS_AND_MEAN, CLASS_TOKEN, NOT_THE_WEIGHTS, EncoderCard, HubFile

BIOPTIMUS_MEAN = (0.707223, 0.578729, 0.703617)
BIOPTIMUS_STD = (0.211883, 0.230117, 0.177517)

VIRCHOW_KWARGS = {
    "init_values": 1e-5,
    "num_classes": 0,
    "mlp_ratio": 5.3375,
    "mlp_layer": "SwiGLUPacked",
    "act_layer": "SiLU",
    "dynamic_img_size": True,
}
H_OPTIMUS_KWARGS = {"img_size": 224, "init_values": 1e-5, "num_classes": 0}

CARDS = (
    EncoderCard(
        name="virchow",
        timm_name="vit_huge_patch14_224",
        timm_kwargs=VIRCHOW_KWARGS,
        weights=HubFile("paige-ai/Virchow", "pytorch_model.bin", "19eebc84ae33e79f1b2d866e6ff90ae50e522f9a"),
        dim=2560,
        input_px=224,
        mpp=0.5,
        interpolation="bicubic",
        pooling=CLASS_AND_MEAN,
        precision="fp16",
        licence="Apache-2.0",
        gated=True,
        commercial_use=True,
        citation="Vorontsov et al., A foundation model for clinical-grade computational pathology and rare cancers "
        "detection, Nature Medicine 2024",
        verified=NOT_THE_WEIGHTS,
    ),
    EncoderCard(
        name="virchow2",
        timm_name="vit_huge_patch14_224",
        timm_kwargs={**VIRCHOW_KWARGS, "reg_tokens": 4},
        weights=HubFile("paige-ai/Virchow2", "pytorch_model.bin", "3158645804b69e3f3bc4439d4116edddf0840a72"),
        dim=2560,
        input_px=224,
        mpp=0.5,
        interpolation="bicubic",
        pooling=CLASS_AND_MEAN,
        precision="fp16",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        commercial_use=False,
        citation="Zimmermann et al., Virchow2: Scaling Self-Supervised Mixed-Magnification Models in Pathology, "
        "arXiv 2408.00738",
        verified=NOT_THE_WEIGHTS,
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
        input_px=224,
        # The authors cut 256 pixels at 0.5 um and crop the middle 224 of them, which keeps the scale.
        mpp=0.5,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
        precision="fp16",
        # The model card puts every deployed use out of scope.
        licence="Apache-2.0 with conditions",
        gated=True,
        commercial_use=False,
        citation="Xu et al., A whole-slide foundation model for digital pathology from real-world data, Nature 2024",
        verified=NOT_THE_WEIGHTS,
    ),
    EncoderCard(
        name="h_optimus_0",
        timm_name="vit_giant_patch14_reg4_dinov2",
        timm_kwargs=H_OPTIMUS_KWARGS,
        weights=HubFile("bioptimus/H-optimus-0", "pytorch_model.bin", "b145cc1e6c6b30d3251aa8b1f844e6974188a743"),
        dim=1536,
        input_px=224,
        mpp=0.5,
        mean=BIOPTIMUS_MEAN,
        std=BIOPTIMUS_STD,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
        precision="fp16",
        licence="Apache-2.0",
        gated=True,
        commercial_use=True,
        citation="Saillard et al., H-optimus-0, github.com/bioptimus/releases 2024",
        verified=NOT_THE_WEIGHTS,
    ),
    EncoderCard(
        name="h_optimus_1",
        timm_name="vit_giant_patch14_reg4_dinov2",
        timm_kwargs=H_OPTIMUS_KWARGS,
        weights=HubFile("bioptimus/H-optimus-1", "pytorch_model.bin", "3592cb220dec7a150c5d7813fb56e68bd57473b9"),
        dim=1536,
        input_px=224,
        mpp=0.5,
        mean=BIOPTIMUS_MEAN,
        std=BIOPTIMUS_STD,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
        precision="fp16",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        commercial_use=False,
        citation="Bioptimus, H-optimus-1, huggingface.co/bioptimus/H-optimus-1 2025",
        verified=NOT_THE_WEIGHTS,
    ),
    EncoderCard(
        name="h0_mini",
        timm_name="vit_base_patch14_reg4_dinov2",
        timm_kwargs={
            **H_OPTIMUS_KWARGS,
            # As many parameters as with a plain unit of ratio 4; the authors publish 86 million.
            "mlp_ratio": 2.66667 * 2,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "SiLU",
        },
        weights=HubFile("bioptimus/H0-mini", "pytorch_model.bin"),
        dim=768,
        input_px=224,
        mpp=0.5,
        mean=BIOPTIMUS_MEAN,
        std=BIOPTIMUS_STD,
        interpolation="bicubic",
        pooling=CLASS_TOKEN,
        precision="fp16",
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        commercial_use=False,
        citation="Filiot et al., Distilling foundation models for robust and efficient models in digital pathology, "
        "MICCAI 2025",
        verified=f"{NOT_THE_WEIGHTS}; the width of its gated linear units is inferred from the number of parameters",
    ),
)
