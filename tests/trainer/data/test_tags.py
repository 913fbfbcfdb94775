"""Tags of a caption, and the mark between those that stay and those that move."""

from trainer.data import tags


def test_split_and_join():
    assert tags.split(" a fox,red ,, at night") == ["a fox", "red", "at night"]
    assert tags.joined(["a fox, ", "", " red", ","]) == "a fox, red"


def test_the_mark_goes_and_other_texts_stay_as_they_are():
    assert tags.whole("my style, a fox ||| red, big ||| at night") == "my style, a fox, red, big, at night"
    assert tags.whole("a fox , red,") == "a fox , red,"
