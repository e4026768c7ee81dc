//! Arithmetic over the columns of a row: `([value] - 32) / 1.8`.

/// A formula that was read, as steps for a stack.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Formula {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Number(f64),
    Column(String),
    Negate,
    Apply(Operator),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

impl Operator {
    const ALL: [(&'static str, Operator); 7] = [
        ("**", Operator::Power),
        ("//", Operator::FloorDivide),
        ("+", Operator::Add),
        ("-", Operator::Subtract),
        ("*", Operator::Multiply),
        ("/", Operator::Divide),
        ("%", Operator::Remainder),
    ];

    fn strength(self) -> u8 {
        match self {
            Self::Add | Self::Subtract => 1,
            Self::Multiply | Self::Divide | Self::FloorDivide | Self::Remainder => 2,
            Self::Power => 4,
        }
    }

    fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::FloorDivide => (left / right).floor(),
            Self::Remainder => left - right * (left / right).floor(),
            Self::Power => left.powf(right),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Open,
    Negate,
    Apply(Operator),
}

impl Formula {
    /// Reads numbers, `[column]`, `+ - * / // % **` and brackets. Needs no recursion, so any depth is fine.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut operand_next = true;
        let mut rest = text.trim_start();
        while let Some(c) = rest.chars().next() {
            let used;
            if operand_next {
                (used, operand_next) = match c {
                    '(' => {
                        waiting.push(Waiting::Open);
                        (1, true)
                    }
                    '-' => {
                        waiting.push(Waiting::Negate);
                        (1, true)
                    }
                    '+' => (1, true),
                    '[' => {
                        let end = rest.find(']').ok_or("a ']' is missing")?;
                        steps.push(Step::Column(rest[1..end].trim().to_lowercase()));
                        (end + 1, false)
                    }
                    _ => {
                        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
                        let number =
                            rest[..end].parse().map_err(|_| format!("a number or [column] is expected at '{rest}'"))?;
                        steps.push(Step::Number(number));
                        (end, false)
                    }
                };
            } else if c == ')' {
                loop {
                    match waiting.pop() {
                        None => return Err("a '(' is missing".to_owned()),
                        Some(Waiting::Open) => break,
                        Some(other) => steps.push(step(other)),
                    }
                }
                used = 1;
            } else {
                let found = Operator::ALL.into_iter().find(|(symbol, _)| rest.starts_with(symbol));
                let (symbol, operator) = found.ok_or_else(|| format!("an operator is expected at '{rest}'"))?;
                while let Some(top) = waiting.last().copied().filter(|top| binds_first(*top, operator)) {
                    waiting.pop();
                    steps.push(step(top));
                }
                waiting.push(Waiting::Apply(operator));
                (used, operand_next) = (symbol.len(), true);
            }
            rest = rest[used..].trim_start();
        }
        if operand_next {
            return Err("a number or [column] is missing at the end".to_owned());
        }
        while let Some(top) = waiting.pop() {
            if top == Waiting::Open {
                return Err("a ')' is missing".to_owned());
            }
            steps.push(step(top));
        }
        Ok(Self { steps })
    }

    /// The columns that it reads.
    pub(super) fn columns(&self) -> Vec<&str> {
        self.steps
            .iter()
            .filter_map(|step| if let Step::Column(name) = step { Some(name.as_str()) } else { None })
            .collect()
    }

    /// The value; none when a column has none or the result is not finite.
    pub(super) fn evaluate(&self, column: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
        let mut stack: Vec<f64> = Vec::new();
        for step in &self.steps {
            let value = match step {
                Step::Number(value) => *value,
                Step::Column(name) => column(name)?,
                Step::Negate => -stack.pop()?,
                Step::Apply(operator) => {
                    let right = stack.pop()?;
                    operator.apply(stack.pop()?, right)
                }
            };
            stack.push(value);
        }
        stack.pop().filter(|value| value.is_finite())
    }
}

fn step(waiting: Waiting) -> Step {
    match waiting {
        Waiting::Apply(operator) => Step::Apply(operator),
        Waiting::Open | Waiting::Negate => Step::Negate,
    }
}

/// True when what waits is done before an operator that follows. Powers bind to the right.
fn binds_first(top: Waiting, next: Operator) -> bool {
    match top {
        Waiting::Open => false,
        Waiting::Negate => next != Operator::Power,
        Waiting::Apply(top) => {
            top.strength() > next.strength() || (top.strength() == next.strength() && next != Operator::Power)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<f64> {
        Formula::parse(text).unwrap().evaluate(&|name| (name == "a").then_some(5.0))
    }

    #[test]
    fn precedence_is_that_of_arithmetic() {
        for (text, expected) in [
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("10 - 4 - 3", 3.0),
            ("2 ** 3 ** 2", 512.0),
            ("-2 ** 2", -4.0),
            ("7 // 2 + 7 % 4", 6.0),
            ("-[a] * -2", 10.0),
            ("2 * (3 + [A]) / 4", 4.0),
        ] {
            assert_eq!(value(text), Some(expected), "{text}");
        }
        assert_eq!(value("[b] + 1"), None);
        for wrong in ["", "1 +", "(1", "1)", "1 2", "a + 1", "[a"] {
            assert!(Formula::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[0-9a.()+*/%\\[\\] -]*") {
            if let Ok(formula) = Formula::parse(&text) {
                let _ = formula.evaluate(&|_| Some(1.0));
            }
        }
    }
}
