"""Statements that the numbers bear out."""

import math

import numpy as np
import pytest

from selfinv.benchmark.markdown import report
from selfinv.benchmark.summary import compare, per_case, per_image, tables, verdict


def row(method, image, psnr, seed=0, **more):
    told = "PSF, truth" if "oracle" in method else "PSF"
    group = "reference" if method == "input" else "oracle" if "oracle" in method else "self-tuned"
    base = {
        "track": "a",
        "condition": "paper",
        "image": image,
        "method": method,
        "seed": seed,
        "status": "ok",
    }
    costs = {"training_seconds": 1.0, "inference_seconds": 1.0, "seconds": 2.0, "peak_memory_mib": 5.0}
    return base | {"told": told, "group": group, "psnr": psnr, "pixels": 500_000} | costs | more


def rows(**methods):
    return [
        row(m.replace("_", "-"), f"i{k}", v) for m, values in methods.items() for k, v in enumerate(values)
    ]


def scores(values):
    return {(f"i{k}", 0): float(v) for k, v in enumerate(values)}


def test_the_interval_is_of_paired_differences():
    images = [f"i{k}" for k in range(14)]
    difficulty = np.random.default_rng(0).normal(20, 5, 14)  # differs far more than the methods do
    gain = np.random.default_rng(1).normal(0.5, 0.2, 14)
    d = compare(scores(difficulty + gain), scores(difficulty))
    assert d.mean == pytest.approx(gain.mean())
    assert 0.1 < d.high - d.low < 0.5  # of the difficulty it would be 6
    assert d.wins + d.losses == 14
    assert d.worst == images[int(gain.argmin())]


@pytest.mark.parametrize("images", [2, 3, 5, 14])
def test_of_a_hundred_intervals_95_hold_the_true_difference_however_few_the_images(images):
    random, draws, held, right = np.random.default_rng(images), 4000, 0, 0.3
    for _ in range(draws):
        ours = scores(random.normal(right, 1.0, images))
        d = compare(ours, dict.fromkeys(ours, 0.0))
        held += d.low <= right <= d.high
    assert held / draws == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_one_image_has_no_interval_and_none_in_common_no_difference():
    alone = compare(scores([1]), scores([0, 0]))
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)
    assert compare({("a", 0): 1}, {("b", 0): 1}) is None
    assert compare({("a", 0): 1}, {("a", 1): 1}) is None


def test_seeds_are_averaged_before_images_are_compared():
    some = [row("x", "a", 1.0), row("x", "a", 3.0, seed=1), row("x", "b", 9.0)]
    assert per_image(per_case(some, "x", "psnr")) == {"a": 2.0, "b": 9.0}


def test_a_seed_that_failed_does_not_turn_the_ranking_over():
    # The noise of the second seed is 4 dB harder. The rival has lost it, and is 1 dB worse on the first.
    some = [row("ssi", image, 30 - 4 * seed, seed) for image in "abc" for seed in (0, 1)]
    some += [row("rival", image, 29) for image in "abc"]
    lost = {"status": "failed", "error": "ValueError: boom", "psnr": None}
    some += [row("rival", image, None, 1) | lost for image in "abc"]
    (table,) = tables(some)
    words = verdict(table)
    assert words.startswith("ssi is best: 28.00 dB")
    assert "ssi is 1.00 dB better than rival" in words
    assert "wins 3 of 3" in words
    assert "| 3 of 6 cases |" in report([table], "title", "facts", [])


def test_the_truth_told_cannot_win():
    (table,) = tables(rows(input=[15, 15, 15], ssi=[20, 21, 22], tv_oracle=[30, 30, 30]))
    assert table.ranked()[0].method == "ssi"
    assert verdict(table).startswith("ssi is best: 21.00 dB on 3 images, at 2.0 s an image")


def test_a_loss_is_called_one():
    (table,) = tables(rows(ssi=[20, 21, 22, 20], wiener=[21, 22, 23.5, 21]))
    words = verdict(table)
    assert words.startswith("wiener is best")
    assert "ssi is 1.12 dB worse than wiener" in words
    assert "wins 0 of 4 images and loses 4" in words
    assert "wiener is 1.12 dB better" not in words  # the same again, the other way round


def test_no_significant_difference_is_an_answer():
    (table,) = tables(rows(ssi=[20, 21, 22, 20], wiener=[19, 22.5, 21, 20.2]))
    assert "not significant" in verdict(table)
    (table,) = tables(rows(ssi=[20, 21], wiener=[20, 21]))
    assert "as good as wiener" in verdict(table)


def test_where_nothing_improves_on_the_input_nothing_is_praised():
    (table,) = tables(rows(input=[24, 24.5], wiener=[23, 24], richardson_lucy=[22, 23.4]))
    words = verdict(table)
    assert words.startswith("No method improves on the input, 24.25 dB; best of them is wiener: 23.50 dB")
    assert "is best" not in words


def test_without_ssi_the_best_is_compared_with_the_others():
    (table,) = tables(rows(input=[15, 16, 17], wiener=[21, 22, 23], richardson_lucy=[20.8, 22.1, 22.8]))
    assert table.ours == "wiener"
    assert table.line("input").difference.wins == 3
    words = verdict(table)
    assert "wiener is 0.10 dB better than richardson-lucy" in words
    assert "that is not significant; it wins 2 of 3 images and loses 1" in words


def test_the_lead_of_the_best_is_told_though_ours_is_behind():
    (table,) = tables(rows(ssi=[20, 21, 22], wiener=[23, 24, 25], richardson_lucy=[22.9, 23.9, 24.9]))
    words = verdict(table)
    assert "wiener is 0.10 dB better than richardson-lucy" in words
    assert "ssi is 3.00 dB worse than wiener" in words


def test_scores_of_the_inputs_alone_are_an_answer():
    (table,) = tables(rows(input=[15, 16]))
    assert verdict(table) == "No method to rank was asked for: input 15.50 dB on 2 images."


def test_failures_are_counted_shown_and_not_averaged():
    some = rows(ssi=[20, 21, 22], wiener=[10, 11])
    some.append({**row("wiener", "i2", 0), "status": "failed", "error": "ValueError: boom", "psnr": None})
    (table,) = tables(some)
    line = table.line("wiener")
    assert (line.images, line.means["psnr"]) == (2, 10.5)
    text = report([table], "title", "facts", ["remark"])
    assert "wiener **failed** on i2: ValueError: boom" in text
    assert "2 of 3" in text
    # With a higher mean over fewer images a method does not lead those that did them all.
    some = [*rows(ssi=[20, 21, 22]), row("wiener", "i2", 30)]
    assert tables(some)[0].ranked()[0].method == "ssi"


def test_means_spreads_and_costs_are_over_images():
    some = [
        row("ssi", "a", 20.0, seconds=1.0, pixels=500_000),
        row("ssi", "b", 22.0, seconds=3.0, pixels=10**6),
    ]
    (line,) = tables(some)[0].lines
    assert line.spreads["psnr"] == pytest.approx(math.sqrt(2))  # of a sample: n - 1
    assert line.costs["seconds"] == pytest.approx(2.0)
    assert line.costs["seconds_per_mpx"] == pytest.approx(2.5)


def test_a_score_that_is_none_on_one_image_is_averaged_over_the_others():
    some = [row("ssi", "a", 20.0, smi=0.3), row("ssi", "b", 22.0, smi=math.nan)]
    (line,) = tables(some)[0].lines
    assert line.means["smi"] == 0.3
    assert line.images == 2


def test_a_result_that_its_method_warns_of_counts_and_the_warning_is_shown():
    some = rows(ssi=[20, 22])
    some[1] |= {"status": "flagged", "error": "too few steps"}
    (table,) = tables(some)
    assert (table.lines[0].images, table.lines[0].means["psnr"]) == (2, 21.0)
    assert "ssi says of its result on i1: too few steps" in report([table], "title", "facts", [])


def test_where_everything_failed_that_is_what_is_shown():
    lost = {**row("wiener", "i0", None), "status": "failed", "error": "no luck"}
    (table,) = tables([lost])
    assert verdict(table) == "No method has a result here."
    assert "no luck" in report([table], "t", "f", [])


def test_published_rows_stand_under_their_counterparts_in_track_a_only():
    some = rows(input=[15, 16], ssi=[20, 21])
    text = report(tables(some), "t", "f", [])
    assert "| *blurry & noisy (input), published* |  | 22 | *17.8* | *0.29* |" in text
    for other in ({"track": "b"}, {"condition": "sigma=0.05"}):
        assert "published" not in report(tables([r | other for r in some]), "t", "f", [])


def test_how_to_read_the_tables_is_said():
    text = report(tables(rows(input=[15, 16], ssi=[20, 21])), "t", "f", [])
    for words in ("± standard deviation over images", "Bold: the best", "22 whole images", "SMI swings"):
        assert words in text


def test_volumes_with_and_without_truth_are_tables_of_their_own():
    bead = {**row("ssi", "bead", None), "held_out": 0.9}
    found = tables([row("ssi", "bars", 20.0), bead])
    assert [(t.score, t.images) for t in found] == [("psnr", ["bars"]), ("held_out", ["bead"])]
    assert "0.900" in verdict(found[1])
    assert found[1].title == f"{found[0].title}, without a truth"
