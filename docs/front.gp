# The picture at the top of README.md; draw with: cd docs && gnuplot front.gp
# Left: the idea, with C = (4, 4).  Right: tokens/s of one stream by context, int8 and q8_0, from benchmarks.md, "Beside
# llama.cpp" (medians of two interleaved rounds; the context of 0 is drawn at 0).
set terminal svg size 900,330 font 'sans-serif,13' background '#ffffff'
set output 'front.svg'
token = '#9aa3b5'; ink = '#2f3a55'; one = '#0d8f88'; two = '#7446d8'; next = '#d98a00'
set multiplot

# --- the idea, in pixels -------------------------------------------------------------------------------------------------
set lmargin at screen 0; set rmargin at screen 0.5; set tmargin at screen 1; set bmargin at screen 0
set xrange [0:450]; set yrange [0:330]
unset border; unset tics; unset key
n = 48; w = 7.4; at(i) = 66 + w * i; unit(g) = at(4*g + 1.5); top(g) = at(16*g + 7.5)
# Tokens 0 … 46 are written, 47 comes next: the 4th of its chunk, whose unit is the 4th of the 3rd group of 16.

set label 1 'Transformer: a new token reads every earlier token' at 8, 312 tc rgb ink font ',14'
set label 2 'PHOTON: a few units, and the tokens of its own chunk' at 8, 184 tc rgb ink font ',14'
set label 3 'level 2' at 52, 135 right tc rgb two font ',11'
set label 4 'level 1' at 52, 88 right tc rgb one font ',11'
set label 5 'tokens' at 52, 31 right tc rgb ink font ',11'
set label 6 'tokens' at 52, 217 right tc rgb ink font ',11'

pale(colour, is_read) = is_read ? colour : '#ccd2df'
do for [i = 0:n-2] {
  set object 100+i rectangle center at(i), 217 size 5, 12 fs solid noborder fc rgb ink
  set object 200+i rectangle center at(i), 31 size 5, 12 fs solid noborder fc rgb pale(ink, i >= 44)
}
set object 150 rectangle center at(n-1), 217 size 6, 14 fs empty border rgb next lw 2
set object 250 rectangle center at(n-1), 31 size 6, 14 fs empty border rgb next lw 2
do for [g = 0:11] {
  x = unit(g)
  set object 300+g polygon from at(4*g)-3, 39 to at(4*g+3)+3, 39 to x+6, 81 to x-6, 81 to at(4*g)-3, 39 fs transparent solid 0.10 noborder fc rgb one
  if (g < 11) { set object 320+g rectangle center x, 88 size 17, 12 fs solid noborder fc rgb pale(one, g >= 8) } \
  else { set object 320+g rectangle center x, 88 size 17, 12 fs empty border rgb one }
}
do for [g = 0:2] {
  x = top(g)
  set object 340+g polygon from unit(4*g)-9, 95 to unit(4*g+3)+9, 95 to x+9, 128 to x-9, 128 to unit(4*g)-9, 95 fs transparent solid 0.10 noborder fc rgb two
  if (g < 2) { set object 350+g rectangle center x, 135 size 30, 13 fs solid noborder fc rgb two } \
  else { set object 350+g rectangle center x, 135 size 30, 13 fs empty border rgb two }
}
set parametric
set trange [0:1]
set samples 26
to_next(x, t) = x + (at(n-1) - x) * t
fall(y, h, t) = y + h * sin(pi * t) - (y - 41) * t**4
plot for [i = 0:n-2] to_next(at(i), t), 225 + 70 * (n-1-i) / (n-1.0) * sin(pi * t) with lines lw 0.7 lc rgb next, \
     for [g = 0:1] to_next(top(g), t), fall(142, g ? 8 : 20, t) with lines lw 1.6 lc rgb next, \
     for [g = 8:10] to_next(unit(g), t), fall(95, 6 + 2 * (10 - g), t) with lines lw 1.2 lc rgb next, \
     for [i = 44:46] to_next(at(i), t), 39 + (n-1-i) * 4 * sin(pi * t) with lines lw 1 lc rgb next
unset parametric
unset object
do for [i = 1:6] { unset label i }

# --- the measurement -----------------------------------------------------------------------------------------------------
$speed << END
0     40.3  53.3  117  299
2048  24.1  35.2  114  349
8192  13.6  16.1  113  323
END
set lmargin at screen 0.565; set rmargin at screen 0.8; set tmargin at screen 0.86; set bmargin at screen 0.17
set border 3 lc rgb '#666666'; set tics nomirror textcolor rgb '#333333'; set grid lc rgb '#e2e2e2' lt 1
set xrange [0:8192]; set yrange [0:380]; set samples 100
set xtics nomirror ('0' 0, '2,048' 2048, '8,192' 8192); set ytics nomirror 100
set xlabel 'tokens in the context (one stream, int8)' offset 0, 0.3
set label 1 'Tokens per second, 600 M parameters, 2 CPU cores' at screen 0.53, screen 0.945 tc rgb ink font ',14'
set label 2 'photon, recursive: 323' at 8192, 323 offset 1.2, 0 tc rgb '#7446d8'
set label 3 '23.8×' at 8192, 323 offset 1.2, -1.2 tc rgb '#7446d8' font ',17'
set label 4 'photon, exact: 113' at 8192, 113 offset 1.2, 0.6 tc rgb '#0d8f88'
set label 5 '8.3×' at 8192, 113 offset 1.2, -0.6 tc rgb '#0d8f88' font ',17'
set label 6 'our Transformer: 16.1' at 8192, 16.1 offset 1.2, 0.6 tc rgb '#222222'
set label 7 'llama.cpp: 13.6' at 8192, 13.6 offset 1.2, -0.5 tc rgb '#b36b00'
plot $speed using 1:5 with linespoints lw 2.5 pt 6 ps 0.8 lc rgb '#7446d8', \
     $speed using 1:4 with linespoints lw 2.5 pt 7 ps 0.8 lc rgb '#0d8f88', \
     $speed using 1:3 with linespoints lw 2.5 pt 7 ps 0.8 lc rgb '#222222', \
     $speed using 1:2 with linespoints lw 2.5 pt 5 ps 0.8 lc rgb '#b36b00'
unset multiplot
