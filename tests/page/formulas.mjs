/** Formulas as models write them. Each is rendered by a reference as well. */
const lines = String.raw`
x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}
ax^2 + bx + c = 0
a^2 + b^2 = c^2
e^{i\pi} + 1 = 0
(x + y)^n = \sum_{k=0}^{n} \binom{n}{k} x^k y^{n-k}
\left(1 + \frac{1}{n}\right)^n \to e
\sqrt[3]{x^2 + 1}
\sqrt{1 + \sqrt{1 + x}}
|x - y| \le |x| + |y|
\lfloor x \rfloor + \lceil y \rceil
f'(x) = \lim_{h \to 0} \frac{f(x+h) - f(x)}{h}
f''(x) + f'(x)^2
\frac{d}{dx} x^n = n x^{n-1}
\frac{\partial f}{\partial x}, \frac{\partial^2 f}{\partial x \partial y}
\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}
\int x^2 \, dx = \frac{x^3}{3} + C
\iint_D f(x,y)\,dA
\oint_C \mathbf{F} \cdot d\mathbf{r}
\nabla \times \mathbf{E} = -\frac{\partial \mathbf{B}}{\partial t}
\nabla \cdot \mathbf{E} = \frac{\rho}{\varepsilon_0}
\sum_{n=1}^{\infty} \frac{1}{n^2} = \frac{\pi^2}{6}
\prod_{i=1}^{n} a_i
\sum_{\substack{i=1 \\ i \ne j}}^n a_{ij}
\lim_{x \to 0} \frac{\sin x}{x} = 1
\lim_{n \to \infty} a_n
\max_{x \in S} f(x)
\min_{\theta} \mathcal{L}(\theta)
\sup_{x} |f(x)|
\log_2 n + \ln x + \exp(-x)
\sin^2 \theta + \cos^2 \theta = 1
\tan\left(\frac{\pi}{4}\right)
\arctan x + \sinh y
\begin{pmatrix} a & b \\ c & d \end{pmatrix}
\begin{bmatrix} 1 & 0 & 0 \\ 0 & 1 & 0 \\ 0 & 0 & 1 \end{bmatrix}
\begin{vmatrix} a & b \\ c & d \end{vmatrix} = ad - bc
\begin{matrix} 1 & 2 \\ 3 & 4 \end{matrix}
\begin{Vmatrix} a \\ b \end{Vmatrix}
\begin{Bmatrix} a \\ b \end{Bmatrix}
A = \begin{bmatrix} a_{11} & \cdots & a_{1n} \\ \vdots & \ddots & \vdots \\ a_{m1} & \cdots & a_{mn} \end{bmatrix}
f(x) = \begin{cases} x^2 & \text{if } x \ge 0 \\ -x & \text{otherwise} \end{cases}
|x| = \begin{cases} x, & x \geq 0 \\ -x, & x < 0. \end{cases}
\begin{aligned} a &= b + c \\ &= d \end{aligned}
\begin{aligned} x + y &= 1 \\ 2x - y &= 3 \end{aligned}
\begin{array}{cc} a & b \\ c & d \end{array}
\begin{array}{l|r} a & b \\ \hline c & d \end{array}
\begin{gathered} a = b \\ c = d \end{gathered}
\vec{v} = \langle v_1, v_2, v_3 \rangle
\hat{y} = \mathbf{w}^\top \mathbf{x} + b
\bar{x} = \frac{1}{n}\sum_{i=1}^n x_i
\tilde{x} + \dot{x} + \ddot{x}
\overline{AB} \parallel \overline{CD}
\overrightarrow{AB}
\widehat{ABC} + \widetilde{xyz}
\underline{x + y}
\underbrace{a + b}_{n} + \overbrace{c + d}^{m}
\mathbb{R}^n \to \mathbb{C}
\mathbb{N} \subset \mathbb{Z} \subset \mathbb{Q} \subset \mathbb{R}
\mathcal{O}(n \log n)
\mathcal{N}(\mu, \sigma^2)
\mathfrak{g} \oplus \mathfrak{h}
\mathrm{d}x, \mathrm{Var}(X)
\mathbf{A}\mathbf{x} = \mathbf{b}
\mathsf{T} + \mathtt{code}
\boldsymbol{\beta} + \boldsymbol{x}
\operatorname{softmax}(z_i) = \frac{e^{z_i}}{\sum_j e^{z_j}}
\operatorname*{argmin}_{\theta} L(\theta)
\text{Attention}(Q, K, V) = \text{softmax}\left(\frac{QK^T}{\sqrt{d_k}}\right)V
P(A \mid B) = \frac{P(B \mid A) P(A)}{P(B)}
P(A|B) = \frac{P(A \cap B)}{P(B)}
\mathbb{E}[X] = \sum_x x \, P(X = x)
\text{Var}(X) = \mathbb{E}[X^2] - (\mathbb{E}[X])^2
f(x) = \frac{1}{\sigma\sqrt{2\pi}} e^{-\frac{(x-\mu)^2}{2\sigma^2}}
\chi^2 = \sum_i \frac{(O_i - E_i)^2}{E_i}
\Gamma(n) = (n-1)!
n! = \prod_{k=1}^n k
\zeta(s) = \sum_{n=1}^\infty n^{-s}
\alpha, \beta, \gamma, \delta, \epsilon, \varepsilon, \zeta, \eta, \theta
\iota, \kappa, \lambda, \mu, \nu, \xi, \pi, \rho, \sigma, \tau
\upsilon, \phi, \varphi, \chi, \psi, \omega
\Gamma, \Delta, \Theta, \Lambda, \Xi, \Pi, \Sigma, \Phi, \Psi, \Omega
\forall x \in X, \exists y \in Y
\exists! x
\neg p \lor q \land r
p \implies q \iff \neg q \Rightarrow \neg p
A \cup B \cap C \setminus D
A \subseteq B \supset C
x \notin A, \emptyset \subset A, \varnothing
a \equiv b \pmod{n}
a \bmod b
a \mid b, a \nmid b
\gcd(a, b) = 1
x \approx y \sim z \propto w
x \ll y \gg z
x \neq y \ne z
x \times y \cdot z \div w
\pm 1 \mp 2
A \otimes B \oplus C
f: X \to Y, x \mapsto f(x)
f \circ g
x \rightarrow y \leftarrow z \leftrightarrow w
A \xrightarrow{f} B
A \xrightarrow[g]{f} B
2H_2 + O_2 \rightarrow 2H_2O
\mathrm{H_2O}
\mathrm{CO_2} + \mathrm{H_2O} \rightleftharpoons \mathrm{H_2CO_3}
E = mc^2
F = G \frac{m_1 m_2}{r^2}
i\hbar \frac{\partial}{\partial t} \Psi = \hat{H} \Psi
\langle \psi | \phi \rangle
|\psi\rangle = \alpha|0\rangle + \beta|1\rangle
\left\langle x, y \right\rangle
\left\| x \right\|_2 = \sqrt{\sum_i x_i^2}
\|x\|
\left| \frac{a}{b} \right|
\left\{ x \in \mathbb{R} : x > 0 \right\}
\{1, 2, \ldots, n\}
\left[ 0, 1 \right)
\left. \frac{dy}{dx} \right|_{x=0}
\left( \frac{a}{b} \middle| c \right)
\big( x \big) \Big[ y \Big] \bigg\{ z \bigg\}
\bigl( a \bigr)
a_1, a_2, \dots, a_n
1 + 2 + \cdots + n = \frac{n(n+1)}{2}
x_{i,j}^{(k)}
x^{y^z}
x_{i_j}
{}^{14}\mathrm{C}
x^\prime
x'_i
x_1'
10^{-3}
3.14159 \times 10^8
1,000,000
50\%
\$5.00
a \quad b \qquad c
a\,b\;c\!d
90^\circ
45^{\circ}\text{C}
\angle ABC = 90^\circ
\triangle ABC \cong \triangle DEF
\boxed{42}
\boxed{x = \frac{1}{2}}
\therefore x = 2
\dfrac{1}{2} + \tfrac{3}{4}
\dbinom{n}{k}
\frac12 + \frac{1}2
\frac{\frac{a}{b}}{\frac{c}{d}}
\cfrac{1}{1 + \cfrac{1}{2}}
a \over b
{n \choose k}
\stackrel{\text{def}}{=}
\overset{!}{=} + \underset{x}{y}
\text{speed} = \frac{\text{distance}}{\text{time}}
\text{for all } x \text{ and } y
\textbf{x} + \mathit{diff}
\text{if $x > 0$}
\textrm{rate} \times \textsf{time}
\sum\limits_{i=1}^n i
\int\limits_0^1 x
\sum\nolimits_{i} x_i
\displaystyle\sum_{i=1}^n i
\partial_t u = \Delta u
\nabla^2 \phi = 0
\infty - \infty
\aleph_0 < 2^{\aleph_0}
\hbar = \frac{h}{2\pi}
\ell_1 + \ell_2
\Re(z) + \Im(z)
\det(A - \lambda I) = 0
\dim V, \ker T, \deg p
A^{-1}, A^T, A^*, A^\dagger
\mathbf{1}_{[x > 0]}
\mathbf{u} \times \mathbf{v}
\left(\sum_{i=1}^n a_i b_i\right)^2 \le \left(\sum_{i=1}^n a_i^2\right)\left(\sum_{i=1}^n b_i^2\right)
S_n = \frac{a(1 - r^n)}{1 - r}
A = P\left(1 + \frac{r}{n}\right)^{nt}
T(n) = 2T\left(\frac{n}{2}\right) + O(n)
\Theta(n^2), \Omega(n)
H(X) = -\sum_{x} p(x) \log p(x)
D_{KL}(P \| Q) = \sum_x P(x) \log\frac{P(x)}{Q(x)}
J(\theta) = -\frac{1}{m}\sum_{i=1}^{m} \left[ y^{(i)} \log h_\theta(x^{(i)}) + (1 - y^{(i)}) \log(1 - h_\theta(x^{(i)})) \right]
\theta := \theta - \alpha \nabla_\theta J(\theta)
\sigma(z) = \frac{1}{1 + e^{-z}}
\text{ReLU}(x) = \max(0, x)
W_{ij} \leftarrow W_{ij} - \eta \frac{\partial L}{\partial W_{ij}}
\hat{\beta} = (X^\top X)^{-1} X^\top y
x_{n+1} = x_n - \frac{f(x_n)}{f'(x_n)}
\int_a^b f(x)\,dx = F(b) - F(a)
\int u\,dv = uv - \int v\,du
\frac{1}{2\pi i}\oint_\gamma \frac{f(z)}{z - a}\,dz
\hat{f}(\xi) = \int_{-\infty}^{\infty} f(x) e^{-2\pi i x \xi}\,dx
f(x) = \sum_{n=0}^{\infty} \frac{f^{(n)}(a)}{n!}(x-a)^n
\cos(\alpha + \beta) = \cos\alpha\cos\beta - \sin\alpha\sin\beta
c^2 = a^2 + b^2 - 2ab\cos C
\frac{a}{\sin A} = \frac{b}{\sin B}
V = \frac{4}{3}\pi r^3
PV = nRT
\Delta G = \Delta H - T\Delta S
\lambda = \frac{h}{p}
\gamma = \frac{1}{\sqrt{1 - v^2/c^2}}
v = v_0 + at
R_{\mu\nu} - \frac{1}{2}R g_{\mu\nu} + \Lambda g_{\mu\nu} = \frac{8\pi G}{c^4}T_{\mu\nu}
\bigcup_{i=1}^n A_i, \bigcap_{i} B_i
\bigoplus_i V_i, \bigotimes_j W_j
\coprod_{i} X_i
\limsup_{n \to \infty} a_n, \liminf_{n \to \infty} a_n
\not= x
\not\in A
A \models \varphi, \Gamma \vdash \psi
\top \land \bot
\lnot P
x \in [0, 1)
\mathcal{F}\{f\}
\mathscr{L}
\star, \ast, \bullet, \circ
\ldots, \cdots, \vdots, \ddots
\uparrow \downarrow \Uparrow \Downarrow
\longrightarrow \Longrightarrow \hookrightarrow
\prec \succ \preceq \succeq
a \ge b \geqslant c \leqslant d
\phantom{x} y
\mathbin{+}
\mathring{A} + \check{x} + \breve{y} + \acute{a} + \grave{e}
\prod_{p \text{ prime}} \frac{1}{1 - p^{-s}}
f^{-1}(x)
x^{2}_{1}
x_1^2
\sum_{i} \sum_{j} a_{ij} x_i x_j
\frac{\mathrm{d}^2y}{\mathrm{d}x^2} + \omega^2 y = 0
y = e^{rx} \left( c_1 \cos \omega x + c_2 \sin \omega x \right)
\left\lfloor \frac{n}{2} \right\rfloor
\left\lceil x \right\rceil
\vert x \vert + \Vert y \Vert
\mathbb{1} + \mathbb{F}_q
\boldsymbol{\Sigma}^{-1}
\text{a\_b} + \text{50\%}
`;
const one = lines.trim().split("\n");

/** Of several lines. */
const blocks = [
  "\\begin{align}\nx &= y \\\\\n  &= z\n\\end{align}",
  "\\begin{align*}\nx^2 - 1 &= 0 \\\\[4pt]\n(x-1)(x+1) &= 0\n\\end{align*}",
  "\\begin{equation}\nE = mc^2\n\\end{equation}",
  "\\begin{split}\na &= b \\\\\n&= c\n\\end{split}",
  "\\begin{cases}\nx + y = 1 \\\\\nx - y = 2\n\\end{cases}",
];

/** Each in a frame that models put it in. */
export const FORMULAS = [...one, ...blocks];
