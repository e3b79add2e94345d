"""How the page looks."""

from selfinv.benchmark.pictures import COLOURS

_BARS = "\n".join(f".bar.{group} {{ background: {colour}; }}" for group, colour in COLOURS.items())

CSS = (
    """
:root { --ink: #1c2126; --soft: #66707a; --line: #e3e6e9; --mark: #e8f4ee; --good: #0b6e4f; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); font: 15px/1.45 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 24px; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 34px 0 8px; }
h3 { font-size: 15px; margin: 20px 0 6px; }
.facts, .note, .legend, small { color: var(--soft); font-size: 13px; }
.verdict { font-size: 18px; line-height: 1.4; border-left: 4px solid var(--good); background: var(--mark);
  padding: 12px 16px; margin: 18px 0; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 500; white-space: nowrap; }
thead th { color: var(--soft); font-size: 12.5px; font-weight: 400; vertical-align: bottom; }
td, th { padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars { width: 100%; }
.bars .track { position: relative; width: 45%; padding: 0; }
.bar { position: absolute; top: 5px; bottom: 5px; border-radius: 2px; min-width: 2px; }
.bar.oracle { background-image: repeating-linear-gradient(45deg, #fff6 0 3px, transparent 3px 7px); }
.bar.loss { opacity: 0.45; }
.bars .n { padding-left: 10px; }
.bars tr.best th, .bars tr.best td.n { font-weight: 700; }
.bars tr.best { background: var(--mark); }
.gain { color: var(--soft); }
.legend span { margin-right: 18px; white-space: nowrap; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.badge { display: inline-block; border: 1px solid var(--line); border-radius: 9px; padding: 0 7px;
margin-right: 4px;
  font-size: 12px; color: var(--soft); white-space: nowrap; }
.badge.truth { color: var(--bad); border-color: #eac5c2; }
.wide { overflow-x: auto; }
.scores { font-size: 13px; min-width: 100%; }
.scores tr.ours { background: var(--mark); }
.scores tr.notfair th, .scores tr.notfair td { color: var(--soft); }
.scores tr.published th, .scores tr.published td { color: #8a5a14; background: #fdf8ef; font-size: 12.5px; }
.scores td.pos { color: var(--good); } .scores td.neg { color: var(--bad); }
.scores .few { color: var(--bad); }
.worst { white-space: nowrap; max-width: 165px; overflow: hidden; text-overflow: ellipsis; }
.worst small { font-size: 12px; }
.overview td.win { background: var(--mark); font-weight: 700; }
.overview .turned { height: 150px; text-align: right; padding: 0 8px 4px 0; }
.turned span { writing-mode: vertical-rl; transform: rotate(180deg); }
.troubles { font-size: 13.5px; } .troubles .failed b { color: var(--bad); }
details { border-top: 1px solid var(--line); padding: 6px 0; }
summary { cursor: pointer; font-weight: 500; padding: 6px 0; }
.gallery { display: flex; flex-wrap: wrap; gap: 10px 8px; padding-bottom: 6px; }
.gallery figure { margin: 0; flex: 0 0 120px; }
.gallery img { width: 120px; height: 120px; display: block; background: #000; object-fit: contain;
  image-rendering: pixelated; margin-bottom: 3px; }
.gallery figcaption { font-size: 12px; line-height: 1.25; overflow-wrap: anywhere; }
.gallery figcaption span { color: var(--soft); display: block; }
.plot { max-width: 100%; height: auto; }
"""
    + _BARS
)
