"""The style sheet of report.html. Colours follow the reader's light or dark setting."""

from __future__ import annotations

STYLE = """
:root { --back: #ffffff; --ink: #1c1f23; --soft: #5b6570; --line: #dfe3e8; --panel: #f5f7f9;
  --link: #0058a3; --good: #00664a; --bad: #b34700; }
@media (prefers-color-scheme: dark) { :root { --back: #14171b; --ink: #e6e9ec; --soft: #a2adb8;
  --line: #343b43; --panel: #1d2228; --link: #7cc0f2; --good: #4fd0a5; --bad: #ff9a57; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1120px; margin: 0 auto; padding: 0 24px; } header { padding-top:
28px; border-bottom: 1px solid var(--line); } h1 { font-size: 1.7rem; margin: 0 0 12px;
overflow-wrap: anywhere; } h2 { font-size: 1.25rem; margin: 36px 0 12px; } h4 { margin: 0 0 4px;
font-size: .9rem; } a { color: var(--link); } nav { display: flex; flex-wrap: wrap; gap: 4px 18px;
padding: 12px 0 14px; } dl { display: flex; flex-wrap: wrap; gap: 6px 32px; margin: 0; } dt { color:
var(--soft); font-size: .8rem; } dd { margin: 0; overflow-wrap: anywhere; } .cards { display: flex;
flex-wrap: wrap; gap: 12px; margin-bottom: 14px; } .card { background: var(--panel); border: 1px
solid var(--line); border-radius: 8px; padding: 8px 16px; } .card b { font-size: 1.2rem; } .scroll {
overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .95rem; } th, td {
text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; } tbody th { font-weight: 600; }
.numbers td { font-variant-numeric: tabular-nums; white-space: nowrap; } small { color: var(--soft);
} .good { color: var(--good); } .bad { color: var(--bad); } .note { color: var(--soft); font-size:
.88rem; } figure { margin: 0 0 26px; } img { display: block; max-width: 100%; height: auto;
background: #fff; border: 1px solid var(--line);
  border-radius: 8px; padding: 10px; }
figcaption { color: var(--soft); font-size: .82rem; margin-top: 4px; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 10px;
  margin: 0 0 10px; overflow-x: auto; max-height: 420px; font-size: .83rem; line-height: 1.45;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details { border-bottom: 1px solid var(--line); padding: 6px 0; }
td details { border: 0; padding: 0; }
pre:empty::before { content: '(empty)'; color: var(--soft); }
summary { cursor: pointer; overflow-wrap: anywhere; }
details[open] > summary { margin-bottom: 8px; font-weight: 600; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); gap: 12px; }
.columns > div { min-width: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 6px; }
.mix { margin-bottom: 12px; }
.bar { display: flex; height: 20px; border-radius: 4px; overflow: hidden; background: var(--line); }
.bar i { display: block; border-right: 1px solid var(--back); }
.c0 { background: #0072B2; } .c1 { background: #D55E00; } .c2 { background: #009E73; }
.c3 { background: #CC79A7; } .c4 { background: #E69F00; } .c5 { background: #56B4E9; }
.c6 { background: #F0E442; } .c7 { background: #8A8A8A; }
footer { color: var(--soft); font-size: .82rem; padding: 28px 24px 40px; }
@media print { nav { display: none; } }
"""
