"""Floor 4: degrade known images, restore them with every method, score, time, and report.

`selfinv.benchmark.run.run_benchmark` does what ``selfinv benchmark`` does. ``conditions`` says what is done
to an image, ``images`` which images, ``methods`` who restores, ``cases`` what one measurement is, ``execute``
makes one after ``warm_up``, ``pool`` makes many at once, ``store`` keeps them, ``summary`` compares, ``page``
and ``markdown`` show.
"""
