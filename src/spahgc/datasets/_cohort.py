"""The seven cohorts on which the paper compares methods, and small open ones: one record each, from which all else is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spahgc._keys import UNS, Obs, Uns
from spahgc._validate import quoted

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

UNKNOWN = "unknown"
"""What nobody has stated; never replaced by a guess."""


class CohortUnavailableError(RuntimeError):
    """A cohort cannot be downloaded; the message says why, and what can be done."""


@dataclass(frozen=True)
class Cohort:
    """What is known of a cohort.

    Parameters
    ----------
    name
        Name of the function in :mod:`spahgc.datasets`.
    title
        Tissue and disease.
    patients
        Patient of every section, sections in the order of the source; ``"unknown"`` where the source does not say.
    platform
        How expression was measured.
    source
        Where it is published: accession, repository or DOI.
    page
        Web page on which the files can be found by hand.
    licence
        Licence of the data, as stated by the source.
    citation
        The article to cite.
    paper_pcc
        Mean gene PCC that the paper reports, one slide left out at a time; ``None`` for a cohort that it does not have.
    note
        What somebody who compares with the paper should know.
    """

    name: str
    title: str
    patients: Mapping[str, str]
    platform: str
    source: str
    page: str
    licence: str
    citation: str
    paper_pcc: float | None = None
    note: str = ""

    @property
    def sections(self) -> list[str]:
        """Names of the sections."""
        return list(self.patients)

    @property
    def n_patients(self) -> int | None:
        """Number of patients, ``None`` where it is not known."""
        patients = set(self.patients.values())
        return None if UNKNOWN in patients else len(patients)

    def check_sections(self, wanted: Iterable[str] | None) -> list[str]:
        """The sections that are wanted, all of them for ``None``; refuses unknown and repeated names."""
        if wanted is None:
            return self.sections
        if isinstance(wanted, str):
            raise TypeError(f'sections= must be a sequence of names, found the string "{wanted}". Pass ["{wanted}"].')
        names = [str(name) for name in wanted]
        unknown = [name for name in names if name not in self.patients]
        if unknown or not names:
            raise ValueError(
                f"sections {quoted(unknown)} are not in cohort {self.name}. It has {', '.join(self.sections)}."
            )
        if len(set(names)) < len(names):
            raise ValueError(f"sections= names one more than once: {', '.join(names)}. Remove the repetition.")
        return names

    def annotate(self, adata: AnnData, section: str) -> AnnData:
        """Write into a section whose it is and where it comes from."""
        import pandas as pd

        patient = self.patients[section]
        if patient == UNKNOWN and Obs.patient in adata.obs and adata.obs[Obs.patient].nunique() == 1:
            patient = str(adata.obs[Obs.patient].iloc[0])  # the file itself says it
        adata.obs[Obs.slide] = pd.Categorical([section] * adata.n_obs)
        adata.obs[Obs.patient] = pd.Categorical([patient] * adata.n_obs)
        adata.uns[UNS] = {**adata.uns.get(UNS, {}), Uns.cohort: self.to_uns()}
        return adata

    def to_uns(self) -> dict[str, str]:
        """What a slide carries along: plain strings."""
        return {"name": self.name, "citation": self.citation, "licence": self.licence, "source": self.source}


def _own_patients(sections: Iterable[str]) -> dict[str, str]:
    """Every section is a patient of its own and carries the patient's name."""
    return {section: section for section in sections}


_WU = "Wu et al., A single-cell and spatially resolved atlas of human breast cancers, Nature Genetics 53 (2021)"
_HEST = (
    "Jaume et al., HEST-1k: A Dataset for Spatial Transcriptomics and Histology Image Analysis, NeurIPS (2024), "
    "arXiv 2406.16192"
)
_HEST_SOURCE = "https://huggingface.co/datasets/MahmoodLab/hest"
_HEST_LICENCE = "CC BY-NC-SA 4.0"
_SHARED_DOI = "https://doi.org/10.48610/4fb74a9"
_PANCREAS = "The paper's table calls both pancreas cohorts Visium, and its text swaps their sizes."

COHORTS: dict[str, Cohort] = {
    cohort.name: cohort
    for cohort in (
        Cohort(
            name="cscc",
            title="cutaneous squamous cell carcinoma",
            patients={f"{patient}_ST_rep{n}": patient for patient in ("P2", "P5", "P9", "P10") for n in (1, 2, 3)},
            platform="legacy ST",
            source="GEO GSE144240",
            page="https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE144240",
            licence=UNKNOWN,
            citation="Ji et al., Multimodal Analysis of Composition and Spatial Architecture in Human Squamous Cell "
            "Carcinoma, Cell 182 (2020)",
            paper_pcc=0.3879,
        ),
        Cohort(
            name="her2st",
            title="HER2-positive breast cancer",
            patients={
                f"{patient}{n}": patient
                for patient, last in zip("ABCDEFGH", (6, 6, 6, 6, 3, 3, 3, 3), strict=True)
                for n in range(1, last + 1)
            },
            platform="legacy ST",
            source="https://github.com/almaan/her2st; encrypted: Zenodo record 3957257",
            page="https://github.com/almaan/her2st",
            licence=UNKNOWN,
            citation="Andersson et al., Spatial deconvolution of HER2-positive breast cancer delineates "
            "tumor-associated cell type interactions, Nature Communications 12 (2021)",
            paper_pcc=0.2786,
        ),
        Cohort(
            name="alex",
            title="triple-negative breast cancer",
            patients=_own_patients(["1142243F", "1160920F", "CID4465", "CID44971"]),
            platform="Visium",
            source=f"{_SHARED_DOI}; counts and spots: Zenodo record 4739739",
            page=_SHARED_DOI,
            licence="counts and spots: CC BY 4.0; images: unknown",
            citation=_WU,
            paper_pcc=0.1719,
            note="The images have to be downloaded by hand.",
        ),
        Cohort(
            name="visium_bc",
            title="breast cancer",
            patients={"block1": "Block A", "block2": "Block A", "FFPE": "FFPE"},
            platform="Visium",
            source=_SHARED_DOI,
            page=_SHARED_DOI,
            licence=UNKNOWN,
            citation="10x Genomics, Human Breast Cancer (Block A Section 1), (Block A Section 2), and Human Breast "
            "Cancer: Ductal Carcinoma In Situ, Invasive Carcinoma (FFPE)",
            paper_pcc=0.2008,
            note="HER2-positive in the paper's table. The sections are taken to be 10x Genomics' public ones, which "
            "is where they are downloaded from; two of them are cut from one block.",
        ),
        Cohort(
            name="hest_lymph_node",
            title="lymph node",
            patients={"NCBI681": "8", "NCBI682": "7", "NCBI683": "6", "NCBI684": "3"},
            platform="Visium",
            source=_HEST_SOURCE,
            page=_HEST_SOURCE,
            licence=_HEST_LICENCE,
            citation=_HEST,
            paper_pcc=0.3502,
            note='HEST-1k samples of organ "Lymph node" whose disease state is not "Healthy".',
        ),
        Cohort(
            name="hest_pancreas1",
            title="pancreatic cancer",
            patients=dict.fromkeys(["NCBI569", "NCBI570", "NCBI571", "NCBI572"], UNKNOWN),
            platform="Visium",
            source=_HEST_SOURCE,
            page=_HEST_SOURCE,
            licence=_HEST_LICENCE,
            citation=_HEST,
            paper_pcc=0.2448,
            note=f'HEST-1k samples of organ "Pancreas", not "Healthy", technology "Visium". {_PANCREAS}',
        ),
        Cohort(
            name="hest_pancreas2",
            title="pancreatic cancer",
            patients=dict.fromkeys(["TENX116", "TENX126", "TENX140"], UNKNOWN),
            platform="Xenium, aggregated to spots",
            source=_HEST_SOURCE,
            page=_HEST_SOURCE,
            licence=_HEST_LICENCE,
            citation=_HEST,
            paper_pcc=0.4136,
            note=f'HEST-1k samples of organ "Pancreas", not "Healthy", technology "Xenium". {_PANCREAS}',
        ),
        Cohort(
            name="spinal_cord",
            title="mouse spinal cord, amyotrophic lateral sclerosis",
            patients={
                "CN51_C2_1": "765",
                "CN51_C2_2": "794",
                "CN52_C2_1": "765",
                "CN52_C2_2": "794",
                "L6CN51_E1_2": "794",
                "CN62_E2": "652",
                "CN63_C1": "652",
                "CN63_E2": "652",
                "CN64_C1": "664",
                "CN67_E2": "635",
            },
            platform="legacy ST",
            source="https://github.com/BiomedicalMachineLearning/Spacell; raw data: PRJNA481056, GEO GSE120374",
            page="https://github.com/BiomedicalMachineLearning/Spacell",
            licence="MIT",
            citation="Maniatis et al., Spatiotemporal dynamics of molecular pathology in amyotrophic lateral sclerosis, "
            "Science 364 (2019); and for the repository Tan et al., SpaCell: integrating tissue morphology and spatial gene "
            "expression to predict disease cells, Bioinformatics 36 (2020)",
            note="Not in the paper. The patients are mice. Sections of the repository that lack counts or image are left out.",
        ),
        Cohort(
            name="olfactory_bulb",
            title="mouse olfactory bulb",
            patients=dict.fromkeys(["MOB1", "MOB2", "MOB3", "MOB4"], UNKNOWN),
            platform="legacy ST, 2k array",
            source="https://github.com/jbergenstrahle/STUtility",
            page="https://github.com/jbergenstrahle/STUtility",
            licence="MIT",
            citation="Bergenstråhle et al., Seamless integration of image and molecular analysis for spatial transcriptomics "
            "workflows, BMC Genomics 21 (2020)",
            note="Not in the paper. 1,000 genes; the source does not say which mice the sections are of.",
        ),
    )
}
"""The records by name; the documentation's table and every check are made from them."""


def find_cohort(name: str) -> Cohort:
    """The record of a name; refuses names that are not known."""
    if name not in COHORTS:
        raise ValueError(f'there is no cohort "{name}". Choose from {", ".join(COHORTS)}.')
    return COHORTS[name]


def cohorts() -> pd.DataFrame:
    """The cohorts on which the paper compares methods, and small ones under an open licence.

    Returns
    -------
    One row a cohort, indexed by the name of its function in :mod:`spahgc.datasets`: ``title``, ``sections`` and
    ``patients`` (how many; patients ``<NA>`` where the source does not say), ``platform``, ``paper_pcc`` (mean gene
    PCC that the paper reports, NaN for a cohort that it does not have), ``licence``, ``source``, ``citation``, ``note``.

    Examples
    --------
    >>> import spahgc as sp
    >>> int(sp.datasets.cohorts().loc["her2st", "sections"])
    36
    """
    import pandas as pd

    rows = [
        {
            "name": cohort.name,
            "title": cohort.title,
            "sections": len(cohort.patients),
            "patients": cohort.n_patients,
            "platform": cohort.platform,
            "paper_pcc": cohort.paper_pcc,
            "licence": cohort.licence,
            "source": cohort.source,
            "citation": cohort.citation,
            "note": cohort.note,
        }
        for cohort in COHORTS.values()
    ]
    return pd.DataFrame(rows).astype({"patients": "Int64", "paper_pcc": float}).set_index("name")
