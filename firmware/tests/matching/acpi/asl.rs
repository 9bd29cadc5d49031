// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Parses the part of ASL (ACPI 6.5, chapter 19) in which data and devices are written: no expressions, no statements.

/// A term.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// A number, or one of `Zero`, `One`, `Ones`.
    Integer(u64),
    /// A string.
    String(String),
    /// A keyword or the name of an object.
    Name(String),
    /// An argument that was left out.
    Absent,
    /// An operator: `Device (COM1) { ... }`.
    Call {
        /// The operator.
        operator: String,
        /// What is between its parentheses.
        arguments: Vec<Term>,
        /// What is between its braces.
        body: Vec<Term>,
    },
}

impl Term {
    /// The number that this is.
    pub fn integer(&self) -> u64 {
        match self {
            Term::Integer(value) => *value,
            other => panic!("no integer: {other:?}"),
        }
    }

    /// The string that this is.
    pub fn string(&self) -> &str {
        match self {
            Term::String(value) => value,
            other => panic!("no string: {other:?}"),
        }
    }

    /// The name that this is.
    pub fn name(&self) -> &str {
        match self {
            Term::Name(value) => value,
            other => panic!("no name: {other:?}"),
        }
    }

    /// Operator, arguments, body.
    pub fn call(&self) -> (&str, &[Term], &[Term]) {
        match self {
            Term::Call { operator, arguments, body } => (operator, arguments, body),
            other => panic!("no operator: {other:?}"),
        }
    }

    /// The elements of the package that this is.
    pub fn package(&self) -> &[Term] {
        let ("Package", [count], elements) = self.call() else { panic!("no package: {self:?}") };
        assert_eq!(usize::try_from(count.integer()), Ok(elements.len()), "elements of a package");
        elements
    }
}

/// The one term that `text` is.
pub fn parse(text: &str) -> Term {
    let mut parser = Parser { rest: text };
    let term = parser.term();
    parser.skip_blanks();
    assert!(parser.rest.is_empty(), "ASL goes on: {}", parser.here());
    term
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn term(&mut self) -> Term {
        self.skip_blanks();
        if let Some(text) = self.rest.strip_prefix('"') {
            let (value, rest) = text.split_once('"').unwrap_or_else(|| panic!("no end: {}", self.here()));
            assert!(!value.contains('\\'), "an escape that the reader does not know: {value}");
            self.rest = rest;
            return Term::String(value.to_owned());
        }
        let word = self.word();
        if self.takes('(') {
            let arguments = self.arguments();
            let body = if self.takes('{') { self.body() } else { Vec::new() };
            return Term::Call { operator: word.to_owned(), arguments, body };
        }
        let integer = match word {
            "Zero" => Some(0),
            "One" => Some(1),
            "Ones" => Some(u64::MAX),
            _ if word.starts_with(|first: char| first.is_ascii_digit()) => Some(number(word)),
            _ => None,
        };
        integer.map_or_else(|| Term::Name(word.to_owned()), Term::Integer)
    }

    /// Up to the closing parenthesis. An empty place between commas is an argument.
    fn arguments(&mut self) -> Vec<Term> {
        let mut arguments = Vec::new();
        if self.takes(')') {
            return arguments;
        }
        loop {
            self.skip_blanks();
            arguments.push(if self.rest.starts_with([',', ')']) { Term::Absent } else { self.term() });
            if self.takes(')') {
                return arguments;
            }
            assert!(self.takes(','), "neither , nor ): {}", self.here());
        }
    }

    /// Up to the closing brace. Elements of a package have commas between them, and sometimes after the last; objects
    /// have none.
    fn body(&mut self) -> Vec<Term> {
        let mut body = Vec::new();
        while !self.takes('}') {
            body.push(self.term());
            self.takes(',');
        }
        body
    }

    fn word(&mut self) -> &'a str {
        let is_other = |c: char| !(c.is_ascii_alphanumeric() || "_\\^.".contains(c));
        let (word, rest) = self.rest.split_at(self.rest.find(is_other).unwrap_or(self.rest.len()));
        assert!(!word.is_empty(), "ASL that the reader does not know: {}", self.here());
        self.rest = rest;
        word
    }

    fn takes(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Skips blanks and comments.
    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let end = if self.rest.starts_with("//") {
                "\n"
            } else if self.rest.starts_with("/*") {
                "*/"
            } else {
                return;
            };
            self.rest = self.rest.split_once(end).map_or("", |(_, rest)| rest);
        }
    }

    fn here(&self) -> String {
        self.rest.chars().take(80).collect()
    }
}

fn number(word: &str) -> u64 {
    let value = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    value.unwrap_or_else(|error| panic!("no number: {word}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read() {
        let text = r#"/* a comment */ Name (_CRS, ResourceTemplate () // another
            { IO (Decode16, 0x0CF8, ,, ) Package (0x02) { "a \ b", \_SB.X, } })"#;
        let text = text.replace(" \\ ", " ");
        let call =
            |operator: &str, arguments, body| Term::Call { operator: operator.to_owned(), arguments, body };
        let name = |name: &str| Term::Name(name.to_owned());
        let io = vec![name("Decode16"), Term::Integer(0xcf8), Term::Absent, Term::Absent, Term::Absent];
        let elements = vec![Term::String("a b".to_owned()), name("\\_SB.X")];
        let template = vec![call("IO", io, vec![]), call("Package", vec![Term::Integer(2)], elements)];
        let template = call("ResourceTemplate", vec![], template);
        assert_eq!(parse(&text), call("Name", vec![name("_CRS"), template], vec![]));
    }

    #[test]
    #[should_panic(expected = "ASL that the reader does not know")]
    fn an_expression_is_not_read() {
        parse("Method (_STA, 0, NotSerialized) { If ((One == 0x01)) { Return (0x0F) } }");
    }
}
