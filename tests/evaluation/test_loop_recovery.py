"""Recovery of loops, by hand: of written ones, and by counting the residues of other domains."""

from fractions import Fraction

import pytest

from hf_maskgit.evaluation.antibodies import Domain
from hf_maskgit.evaluation.loop_recovery import (
    CountedLoops,
    Estimate,
    disagreement,
    distance,
    recovered,
)

# Three residues of the third loop and one before it: more is not needed to count.
NUMBERS = ("104", "105", "106", "117")


def short(loop, chain="H"):
    return Domain(f"C{loop}", chain, NUMBERS)


def test_recovery_is_the_share_of_equal_places():
    assert recovered("ARDY", "ARGW") == 0.5
    with pytest.raises(ValueError, match="zip"):
        recovered("ARD", "ARGW")


def test_disagreement_is_a_mean_over_pairs():
    """ARD and ARG differ in a third, each of them and AAA in two thirds."""
    assert disagreement(["ARD", "ARG", "AAA"]) == pytest.approx(5 / 9)


def test_an_estimate_is_a_mean_with_its_standard_error():
    """The variance of 1, 2, 6 is 7."""
    found = Estimate.of([1.0, 2.0, 6.0])
    assert (found.mean, found.std_error) == (3, pytest.approx((7 / 3) ** 0.5))
    assert Estimate.of([0.5]) == (0.5, 0)


def test_domains_are_compared_number_by_number():
    """Equal at 104 and 117, unlike at 105, and 106 stands in one of them alone: 2 of 4."""
    other = Domain("CWY", "H", ("104", "105", "117"))
    assert distance(short("ARY"), other) == 0.5
    assert distance(short("ARY"), short("ARY")) == 0


def test_counting_judges_a_domain_by_the_others_alone():
    """Of ARY, ARD, AGD and a kappa chain that does not count; by hand for the first.

    The others have A, R, D, A, G, D: the frequencies of A, R, Y are 2/6, 1/6, 0. A and D are the
    most frequent, and A comes first: it is right in one of three places. By place the others have
    A A, R G and D D: A, G (before R), D, of which the first alone is right.
    """
    domains = [short("ARY"), short("ARD"), short("AGD"), short("WWW", "K")]
    found = CountedLoops(domains).recovery(domains[0], "CDR3")
    assert found == {
        "any residue": 1 / 20,
        "by frequency": pytest.approx(float(Fraction(1, 6))),
        "most frequent of the loop": pytest.approx(1 / 3),
        "most frequent of the place": pytest.approx(1 / 3),
    }


def test_a_place_that_no_other_domain_has_gets_the_most_frequent_of_the_loop():
    """By place: A as in the others, nobody has 111A so D of the loop, and again D at 117."""
    longer = Domain("CADD", "H", ("104", "105", "111A", "117"))
    domains = [longer, short("ADD"), short("ADD")]
    found = CountedLoops(domains).recovery(longer, "CDR3")
    assert found["most frequent of the loop"] == pytest.approx(2 / 3)
    assert found["most frequent of the place"] == 1


def test_a_domain_alone_in_its_kind_is_met_by_chance_at_most():
    alone = short("WWW", "K")
    found = CountedLoops([short("ARY"), alone]).recovery(alone, "CDR3")
    assert list(found.values()) == [1 / 20, 0, 0, 0]
