"""Every name under which the package reads or writes AnnData, and the units of what lies there."""

from __future__ import annotations

UNITS = "log1p counts per 10,000"
"""Units of measured expression inside the package and of every prediction."""

UNITS_AS_GIVEN = "as given"
"""Units of expression that was handed over already transformed."""

COUNTS_PER_SPOT = 10_000.0
"""Counts to which every spot is scaled before ``log1p``."""

SPATIAL = "spatial"
"""``obsm``: spot centres ``(x, y)`` in full-resolution pixels. ``uns``: images and scale factors, a library each."""

UNS = "spahgc"
"""``uns``: everything that is needed to repeat what the package wrote."""

UNKNOWN = "unknown"
"""Label of a spot of which nothing can be said: the references show nothing like it, or no type stands out."""

PATCH_CONTEXT = "patch"
"""The `context` of an encoder record: the encoder sees the patch of a spot and nothing around it."""

HEST = "hest"
"""``uns``: what HEST's metadata say of the sample, by the names that HEST gives them."""


SCORES = ("pearson", "spearman", "rmse", "mae")
"""What an evaluation says of a gene, a column of ``var`` each."""

STRUCTURE_SCORES = ("variance_ratio", "moran_difference", "ssim")
"""What it says of a gene's map beside correlation and error, a column of ``var`` each."""

SLIDE_SCORES = ("gene_correlation", "pathway_correlation")
"""What it says of a slide as a whole."""

POOLED_PEARSON = "pearson_pooled"
"""A gene's PCC over the spots of all slides of a group held out, taken together."""


class Obs:
    """Columns of ``obs``."""

    array_row = "array_row"
    array_col = "array_col"
    slide = "slide"
    library = "library_id"
    """Name of the slide as squidpy writes it; taken where there is no ``obs["slide"]``."""
    in_tissue = "in_tissue"
    """Whether a spot lies on the tissue, as Space Ranger and scanpy write it: 0 and 1, as numbers or text, or booleans."""
    total = "spahgc_total_counts"
    """Library size: counts of a spot over all genes that were measured, also where genes were taken away since."""
    patient = "patient"
    tissue_fraction = "tissue_fraction"
    """Tiles: share of a spot's area that is tissue, 0 to 1."""
    focus = "focus"
    """Tiles: variance of the Laplacian of the brightness (0 to 255) at 1 um per pixel; high is sharp."""
    patch_padded = "spahgc_patch_padded"
    """True where the patch of a spot reaches past the image and was padded."""
    area = "area_um2"
    """Area of a cell or region, square microns."""
    few_counts = "few_counts"
    """Cells: True where there are fewer counts than the reader's `min_counts`; they are kept."""
    n_pooled = "n_pooled"
    """Pooled spots: cells, bins or spots whose counts were added up in it."""
    context_padded = "spahgc_context_padded"
    """True where one of the patches of several sizes around a spot reaches past the image and was padded."""

    @staticmethod
    def domain(key: str) -> str:
        """Cluster of a spot by its predicted expression, categorical; ``"0"`` is the largest."""
        return f"{key}_domain"

    @staticmethod
    def cell_types(key: str) -> str:
        """Cell type of a spot by its expression, categorical; ``obsm``: table of spots x types, the scores."""
        return f"{key}_cell_types"

    @staticmethod
    def support(key: str) -> str:
        """How well the references cover what a spot looks like, 0 to 1."""
        return f"{key}_support"

    @staticmethod
    def measured(key: str) -> str:
        """True for the spots of a target that was measured in part which were a reference of this prediction, boolean."""
        return f"{key}_measured"


class Layers:
    """Keys of ``layers``; the prediction itself lies under its own key."""

    @staticmethod
    def spread(key: str) -> str:
        """Standard deviation of a prediction, dense float32, in its units; NaN in genes outside the panel."""
        return f"{key}_std"

    @staticmethod
    def low(key: str) -> str:
        """Lower end of an interval of every value, dense float32, in its units; NaN in genes outside the panel."""
        return f"{key}_low"

    @staticmethod
    def high(key: str) -> str:
        """Upper end of it."""
        return f"{key}_high"


class Obsm:
    """Keys of ``obsm``."""

    cross_graph = "spahgc_cs"
    """CSR, target spots x bank spots, values = cosine similarity."""
    transcriptome = "spahgc_transcriptome"
    """Bank: expression of the genes that the references cover best, CSR, spots x covered genes, float32."""

    polygons = "polygons"
    """Outlines of cells, CSR, float32: row i holds x0, y0, x1, y1, ... of cell i, pixels of the full-resolution image."""
    controls = "controls"
    """Counts of what is no gene (control probes, blank and unassigned codewords), a table of cells x kinds."""

    @staticmethod
    def shares(column: str) -> str:
        """Pooled spots: share of the pooled cells in each category of a column of ``obs``, in their order."""
        return f"{column}_share"

    @staticmethod
    def embedding(encoder: str) -> str:
        """Spots x dim, float32."""
        return f"X_{encoder}"

    @staticmethod
    def context(embedding: str) -> str:
        """What an embedding shows beside the encoder's output for the patch, spots x columns, float32."""
        return f"{embedding}_context"

    @staticmethod
    def enrichment(key: str) -> str:
        """Table of spots x pathways, scores of the predicted expression."""
        return f"{key}_enrichment"

    @staticmethod
    def cross(key: str) -> str:
        """CS graph of a prediction, CSR, target spots x bank spots, values = cosine similarity.

        Where edges by place have a part in the prediction, those as well.
        """
        return f"{key}_cs"

    @staticmethod
    def place(key: str) -> str:
        """Edges by place of a prediction in which they have a part, CSR, target spots x bank spots, values = microns."""
        return f"{key}_ps"

    @staticmethod
    def attention(key: str) -> str:
        """The edges of :meth:`cross`, values = attention that the networks pay to the reference spot; rows sum to 1."""
        return f"{key}_attention"


class Obsp:
    """Keys of ``obsp``."""

    spatial_connectivities = "spatial_connectivities"
    spatial_distances = "spatial_distances"
    reference_connectivities = "spahgc_rs_connectivities"
    """CSR, bank spots x bank spots, values = cosine similarity of embedding and expression."""


class Var:
    """Columns of ``var``; those of a prediction carry its key."""

    total = "spahgc_total_counts"
    """Counts of a gene over all spots, when the library sizes were written; tells whether ``X`` was replaced since."""

    @staticmethod
    def panel(key: str) -> str:
        """True for the genes that were predicted."""
        return f"{key}_panel"

    @staticmethod
    def n_references(key: str) -> str:
        """References that measured a gene, on which its prediction rests; 0 outside the panel. With ``genes="union"`` alone."""
        return f"{key}_n_references"

    n_references_of_bank = "spahgc_n_references"
    """The same in a bank of references."""

    @staticmethod
    def score(key: str, name: str) -> str:
        """A gene's agreement with the measurement, e.g. ``spahgc_pearson`` or ``spahgc_ssim``."""
        return f"{key}_{name}"

    @staticmethod
    def cv_pcc(key: str) -> str:
        """A gene's PCC that references held out in turn let expect of this slide."""
        return f"{key}_cv_pcc"

    @staticmethod
    def cv_pcc_low(key: str) -> str:
        """Lower end of its 95 % interval."""
        return f"{key}_cv_pcc_low"

    @staticmethod
    def cv_pcc_high(key: str) -> str:
        """Upper end of it."""
        return f"{key}_cv_pcc_high"

    @staticmethod
    def kind(key: str) -> str:
        """Number of the group of genes of similar level whose intervals are equally wide in spreads; NaN outside the panel."""
        return f"{key}_interval_kind"

    @staticmethod
    def cv_pcc_section(key: str) -> str:
        """The same PCC if the slide were a further section of a known patient; NaN where the references cannot tell."""
        return f"{key}_cv_pcc_section"

    @staticmethod
    def cv_pcc_patient(key: str) -> str:
        """The same PCC if the slide were of a new patient."""
        return f"{key}_cv_pcc_patient"


class Varm:
    """Keys of ``varm``; those of a prediction carry its key."""

    measured_by = "spahgc_measured_by"
    """In a bank of ``genes="union"``: whether a reference measured a gene, genes x references, boolean; the references are those
    of ``uns["spahgc"]["bank"]["slides"]``, in that order."""

    @staticmethod
    def error_correlation(key: str) -> str:
        """Correlation of a gene's errors at two spots, genes x classes of their distance."""
        return f"{key}_error_correlation"

    @staticmethod
    def error_loadings(key: str) -> str:
        """Loadings of a gene on patterns of error that genes share, genes x patterns."""
        return f"{key}_error_loadings"


class Uns:
    """Entries of ``uns["spahgc"]``."""

    embeddings = "embeddings"
    """One encoder record for each embedding key."""
    slide_mpp = "slide_mpp"
    """Microns per pixel of the slide's full-resolution image."""
    tiles = "tiles"
    """How a grid of pseudo-spots was laid over the tissue of an image."""
    transfers = "transfers"
    """One record for each label or value that came from references, by its key."""
    cell_types = "cell_types"
    """One record of how cell types were scored for each name under which they stand in ``obs`` and ``obsm``."""
    pooled = "pooled"
    """Of a slide that was pooled: from what, how, and what was left out."""
    controls = "controls"
    """Of a slide of cells: names of the features that are no gene, by kind."""
    slide_image = "slide_image"
    """Key of the image of a SpatialData that these microns belong to."""
    patch_um = "patch_um"
    """Width of a patch in microns, for each embedding key."""
    patch_image = "patch_image"
    """What the patches were cut from, for each embedding key: ``image``, ``enlarged`` (times) and ``mpp``, if known."""
    areas = "areas"
    """Over which area a spot was looked at, for each embedding key of several patches a spot, or of shared tiles: ``diameter_px``
    of its circle, ``n_outlines``, spots whose outline was taken instead, and ``n_tiles``, if tiles were shared."""
    features = "features"
    """Where an embedding that another tool made comes from, for each embedding key: ``tool``, ``file``, ``patch_px``, and the
    fields of the encoder record that are assumed since no file says them."""
    stain = "stain"
    """What was estimated of the slide's stain, for each embedding key whose patches were normalised."""
    library_size = "library_size"
    """Of what the library sizes in ``obs`` were taken: ``n_genes``, their number, and ``spots``, a fingerprint of the column."""
    n_genes_measured = "n_genes_measured"
    """In the record of a bank or prediction: genes of the reference that was measured in fewest."""
    bank = "bank"
    """How a bank of references was made."""
    search = "search"
    """How neighbours were found, exactly or approximately and then with what recall: for each CS graph that was made on its
    own, and in the record of a bank of its RS graph, if approximately."""
    predictions = "predictions"
    """One record for each prediction key."""
    n_spots_reference = "n_spots_reference"
    """In the summary of an evaluation: measured spots that were a reference of the prediction, and so are not scored."""
    evaluations = "evaluations"
    """One summary for each prediction key."""
    made_with = "made_with"
    """Of a slide that ``embed_many`` or ``predict_many`` wrote: fingerprints of what it was made from, by operation."""
    cohort = "cohort"
    """Of a slide of a published cohort: name, citation, licence, source."""
    registration = "registration"
    """Of a target: how each reference lies on it, by their images or as the user said."""
    domains = "domains"
    """One record of a clustering for each prediction key, or name that was given to it."""
    enrichment = "enrichment"
    """One record and table of pathways for each prediction key, or name that was given to it."""
    cs_search = "cs_search"
    """In the record of a prediction: how its CS graph was found; of an approximate search its measured recall."""
    pieces = "pieces"
    """In the record of a prediction by networks: pieces of tissue with a gap between them, ``n_pieces``, and spots without a
    neighbour, ``n_isolated``, which are predicted from their references alone."""
    surroundings = "surroundings"
    """In the record of a prediction: whether the neighbours of a spot count ``by`` ``"count"`` or ``"radius"`` and ``why``, their
    number in an array, ``n_around``, and in microns the spacing of the target's spots, ``spacing_um``, that of the references,
    ``references_um``, and the radius that so many fill there, ``radius_um``, as far as resolutions are known."""
    conserve = "conserve"
    """In the record of a prediction with ``conserve``: ``spacing_um`` of the target's points, ``diameter_um`` and ``pitch_um`` of the
    areas of the size of a spot, how many they are, ``n_areas``, by how much means over them are off what was predicted of them,
    ``mean_deviation`` and ``max_deviation`` in its units, the same ``..._in_spreads`` where there is a spread, and by how many
    times the spread was ``widened`` in the mean."""
    experts = "experts"
    """In the record of a prediction: what it is averaged of, with the weights that references held out proved."""
    experts_proven = "experts_proven"
    """Beside them: whether references proved them; with a single one nothing can be held out, and the shares are constants."""
    measured = "measured"
    """In the record of a prediction of a slide that was measured in part: the ``column`` that names its measured spots, their
    name as a ``reference``, how many served as one (``n_measured``) and how many spots were predicted (``n_predicted``)."""
    trust = "trust"
    """In the record of a prediction: for whom its trust holds (``for``, in words; ``case``; ``held_out``, the case that the
    references played; ``estimated`` from other cohorts or not), the number of groups that were held out, ``n_groups``, the
    ``level`` of the interval of a PCC, what Fisher's z is off by (``z_residuals`` at even probabilities), the level of
    ``intervals`` of values, if some were asked for, and half widths of others, ``interval_widths``, in spreads: a row for each of
    ``interval_levels``, a column for each kind of genes."""
    place = "place"
    """In the record of a prediction whose target stores an image: ``quality`` of its registration with each reference and
    whether it is ``used``, whether a place is ``known``, and the ``weights`` of all experts if so."""
    drift = "drift"
    """In the record of a prediction: how the target differs in look from all its references, the numbers of
    :func:`spahgc.pp.compare` by name, and what is ``large``."""
    chosen_references = "chosen_references"
    """In the record of a prediction with ``n_references``: every candidate, the nearest first, with its ``distance``, whether it
    was ``chosen``, and the ``reason``."""
    losses = "losses"
    """In the record of a prediction by networks: terms of the loss by epoch, a list each; ``epoch`` counts from 1 in each
    network, one network after another."""
    shared_errors = "shared_errors"
    """In the record of a prediction: what errors have in common, beside ``varm``: ``edges`` of the classes of distance, in spot
    pitches, ``covariance`` of the patterns, 1 + classes x patterns x patterns, and ``freedom``, of what whole slides are off by."""
    for_whom = "for_whom"
    """In the record of regions, and of what :func:`spahgc.get.predicted` returns: of which kind of target trust is, in words."""
    regions = "regions"
    """One table of means over regions for each prediction key, or name that was given to it."""
    bank_spots = "bank_spots"
    """In the record of a prediction: names ``slide:spot`` of the columns of its CS graph."""
