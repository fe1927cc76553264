"""The bundle: a trained model as a folder of plain files, verified before anything in it is used."""

from studperf.artifact.bundle import Bundle, BundleError, canonical_json, load_bundle, read_verified
from studperf.artifact.card import make_card, make_card_html
from studperf.artifact.compiled import AdditiveModel, compile_pipeline
from studperf.artifact.estimators import dump_pipeline, load_pipeline
from studperf.artifact.publishing import Packed, library_versions, pack, publish
from studperf.artifact.trees import TreeModel, compile_trees

__all__ = [
    "AdditiveModel", "Bundle", "BundleError", "Packed", "TreeModel", "canonical_json", "compile_pipeline", "compile_trees", "dump_pipeline",
    "library_versions", "load_bundle", "load_pipeline", "make_card", "make_card_html", "pack", "publish", "read_verified",
]
