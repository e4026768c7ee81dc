//! Format texts of the form `[[fill]align][sign][#][0][width][,][.precision][type]`.

use crate::cell::Cell;

/// A format that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FormatSpec {
    fill: char,
    align: Option<char>,
    sign: char,
    alternate: bool,
    zero: bool,
    width: usize,
    comma: bool,
    precision: Option<usize>,
    kind: Option<char>,
}

impl FormatSpec {
    /// Reads a format; the colon before it may be left out.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let chars: Vec<char> = text.strip_prefix(':').unwrap_or(text).chars().collect();
        let mut at = 0;
        let mut spec = Self {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            zero: false,
            width: 0,
            comma: false,
            precision: None,
            kind: None,
        };
        let is_align = |index: usize| chars.get(index).copied().filter(|c| "<>^=".contains(*c));
        if let (Some(fill), Some(align)) = (chars.first(), is_align(1)) {
            (spec.fill, spec.align, at) = (*fill, Some(align), 2);
        } else if let Some(align) = is_align(0) {
            (spec.align, at) = (Some(align), 1);
        }
        let mut take = |wanted: &str| {
            let found = chars.get(at).copied().filter(|c| wanted.contains(*c));
            at += usize::from(found.is_some());
            found
        };
        spec.sign = take("+- ").unwrap_or('-');
        spec.alternate = take("#").is_some();
        spec.zero = take("0").is_some();
        let number = |take: &mut dyn FnMut(&str) -> Option<char>| {
            let mut digits = String::new();
            while let Some(digit) = take("0123456789") {
                digits.push(digit);
            }
            digits
        };
        let width = number(&mut take);
        spec.width = if width.is_empty() { 0 } else { width.parse().ok()? };
        spec.comma = take(",").is_some();
        if take(".").is_some() {
            spec.precision = Some(number(&mut take).parse().ok()?);
        }
        spec.kind = take("bdeEfFgGnoxX%s");
        let sane = spec.width <= 1000 && spec.precision.unwrap_or(0) <= 100;
        (at == chars.len() && sane).then_some(spec)
    }

    /// The value in this format; none when the two do not fit.
    pub(super) fn apply(&self, cell: &Cell) -> Option<String> {
        let text = cell.text()?;
        let number: Option<f64> = match cell {
            Cell::Text(_) if matches!(self.kind, None | Some('s')) && !self.comma => None,
            _ => text.trim().parse().ok().filter(|value: &f64| value.is_finite()),
        };
        match (number, self.kind) {
            (_, Some('s')) | (None, None) => {
                let cut = text.chars().take(self.precision.unwrap_or(usize::MAX)).collect();
                Some(self.pad(String::new(), cut, '<'))
            }
            (None, Some(_)) => None,
            (Some(number), kind) => self.number(number, text.trim().parse::<i64>().ok(), &text, kind),
        }
    }

    fn number(&self, number: f64, whole: Option<i64>, text: &str, kind: Option<char>) -> Option<String> {
        let magnitude = number.abs();
        let digits = self.precision.unwrap_or(6);
        let unsigned = whole.map(i64::unsigned_abs);
        let (prefix, body) = match kind {
            Some('b') => ("0b", format!("{:b}", unsigned?)),
            Some('o') => ("0o", format!("{:o}", unsigned?)),
            Some('x') => ("0x", format!("{:x}", unsigned?)),
            Some('X') => ("0X", format!("{:X}", unsigned?)),
            Some('d' | 'n') => ("", unsigned?.to_string()),
            Some('f' | 'F') => ("", format!("{magnitude:.digits$}")),
            Some('%') => ("", format!("{:.digits$}%", magnitude * 100.0)),
            Some('e') => ("", exponent(magnitude, digits)),
            Some('E') => ("", exponent(magnitude, digits).to_uppercase()),
            Some('g') => ("", general(magnitude, digits)),
            Some('G') => ("", general(magnitude, digits).to_uppercase()),
            _ => match self.precision {
                Some(digits) => ("", general(magnitude, digits)),
                None => ("", text.trim().trim_start_matches(['-', '+']).to_owned()),
            },
        };
        let body = if self.comma { thousands(&body) } else { body };
        let sign = match (number.is_sign_negative() && number != 0.0, self.sign) {
            (true, _) => "-",
            (false, '+') => "+",
            (false, ' ') => " ",
            _ => "",
        };
        let prefix = if self.alternate { prefix } else { "" };
        Some(self.pad(format!("{sign}{prefix}"), body, '>'))
    }

    fn pad(&self, lead: String, body: String, default: char) -> String {
        let missing = self.width.saturating_sub(lead.chars().count() + body.chars().count());
        let (fill, align) = match (self.align, self.zero) {
            (Some(align), _) => (self.fill, align),
            (None, true) => ('0', '='),
            (None, false) => (self.fill, default),
        };
        let blanks = |count: usize| fill.to_string().repeat(count);
        match align {
            '<' => format!("{lead}{body}{}", blanks(missing)),
            '^' => format!("{}{lead}{body}{}", blanks(missing / 2), blanks(missing - missing / 2)),
            '=' => format!("{lead}{}{body}", blanks(missing)),
            _ => format!("{}{lead}{body}", blanks(missing)),
        }
    }
}

/// `1.234568e+04`.
fn exponent(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if power < 0 { '-' } else { '+' }, power.abs())
}

/// The shorter of the plain and the exponent form, without trailing zeros.
fn general(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    let scientific = exponent(value, digits - 1);
    let power: i32 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let most = i32::try_from(digits).unwrap_or(i32::MAX);
    if power < -4 || power >= most {
        let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        return format!("{}e{power}", trim(mantissa));
    }
    let decimals = usize::try_from(most - 1 - power).unwrap_or(0);
    trim(&format!("{value:.decimals$}"))
}

/// Commas between groups of three digits before the point.
pub(super) fn thousands(text: &str) -> String {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    let mut out = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + tail
}
