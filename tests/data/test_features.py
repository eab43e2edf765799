"""A prepared data set is data: the classes that its features.json names are TFDS' own, or it is refused before TFDS reads it."""

import json
import sys

import pytest

from bap_jax.data.prepared import _feature_classes, read_prepared
from bap_jax.errors import DataError

TFDS = "tensorflow_datasets.core.features"


def described(kind, key="pythonClassName"):
    inner = {"image": {key: f"{TFDS}.image_feature.Image"}, "label": {key: kind, "classLabel": {"numClasses": "2"}}}
    return {key: f"{TFDS}.features_dict.FeaturesDict", "featuresDict": {"features": inner}}


@pytest.mark.parametrize("key", ["pythonClassName", "type"])
@pytest.mark.parametrize("place", ["evil/1.0.0", "evil/config/1.0.0"])
def test_code_that_a_data_folder_names_is_not_imported(key, place, tmp_path, monkeypatch):
    (tmp_path / "ran_by_a_data_set.py").write_text("raise SystemExit('this ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "data" / place
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(json.dumps(described("ran_by_a_data_set.Label", key)))
    (folder / "dataset_info.json").write_text(json.dumps({"name": "evil", "version": "1.0.0", "fileFormat": "array_record"}))
    with pytest.raises(DataError, match=r"features\.json names the code ran_by_a_data_set\.Label; only features of TFDS"):
        read_prepared(place.removesuffix("/1.0.0"), "train", data_dir=str(tmp_path / "data"))
    assert "ran_by_a_data_set" not in sys.modules


def test_a_damaged_description_is_named(tmp_path):
    (tmp_path / "cut" / "1.0.0").mkdir(parents=True)
    (tmp_path / "cut" / "1.0.0" / "features.json").write_text('{"featuresDict": ')
    with pytest.raises(DataError, match=r"cut/1\.0\.0/features\.json is no JSON"):
        read_prepared("cut", "train", data_dir=str(tmp_path))


def test_a_feature_that_is_called_type_is_no_class():
    inner = {"type": {"pythonClassName": f"{TFDS}.text_feature.Text"}}
    assert list(_feature_classes({"featuresDict": {"features": inner}})) == [f"{TFDS}.text_feature.Text"]
