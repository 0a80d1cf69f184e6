//! JSON that is written as it comes: tables of columns, of which only one cell is in memory.

use serde_json::Value;
use std::io::{self, Write};

/// One value of a column.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    Null,
    /// Minus one, which in some columns stands for nothing.
    Nothing,
    Flag(bool),
    Number(u64),
    /// Microseconds, written as milliseconds.
    Ms(u64),
    Text(&'a str),
    /// An object that holds only its type.
    OfType(&'a str),
    /// What is JSON already.
    Raw(&'a str),
}

/// A column's name and values.
pub(super) type Column<'c, 'a> = (&'a str, &'c mut dyn Iterator<Item = Cell<'a>>);

/// Where JSON goes.
pub(super) struct Json<'a> {
    out: &'a mut dyn Write,
    text: Vec<u8>,
}

/// How much is gathered before it is written.
const ENOUGH: usize = 1 << 16;

impl<'a> Json<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out, text: Vec::with_capacity(ENOUGH + 256) }
    }

    /// Writes what is JSON already.
    pub fn raw(&mut self, text: &str) -> io::Result<()> {
        self.text.extend_from_slice(text.as_bytes());
        self.pass_on(ENOUGH)
    }

    /// Writes a value of any kind.
    pub fn value(&mut self, value: &Value) -> io::Result<()> {
        serde_json::to_writer(&mut self.text, value)?;
        self.pass_on(ENOUGH)
    }

    /// Writes an array.
    pub fn array<'c>(&mut self, cells: impl IntoIterator<Item = Cell<'c>>) -> io::Result<usize> {
        self.text.push(b'[');
        let mut length = 0;
        for cell in cells {
            if length > 0 {
                self.text.push(b',');
            }
            length += 1;
            self.cell(cell)?;
            self.pass_on(ENOUGH)?;
        }
        self.text.push(b']');
        Ok(length)
    }

    /// Writes an object of columns that are equally long, and their length. `head` is how the
    /// object begins: its brace, and members that are no columns.
    pub fn table(&mut self, head: &str, columns: &mut [Column<'_, '_>]) -> io::Result<()> {
        self.raw(head)?;
        let mut longest = 0;
        let mut is_first = head.ends_with('{');
        for (name, cells) in columns {
            if !std::mem::take(&mut is_first) {
                self.text.push(b',');
            }
            serde_json::to_writer(&mut self.text, name)?;
            self.text.push(b':');
            let length = self.array(cells)?;
            debug_assert!(longest == 0 || longest == length, "{name}: {length} of {longest}");
            longest = longest.max(length);
        }
        self.raw(",\"length\":")?;
        self.cell(Cell::Number(longest as u64))?;
        self.raw("}")
    }

    /// Writes what is left.
    pub fn finish(mut self) -> io::Result<()> {
        self.pass_on(1)
    }

    fn cell(&mut self, cell: Cell<'_>) -> io::Result<()> {
        match cell {
            Cell::Null => self.text.extend_from_slice(b"null"),
            Cell::Nothing => self.text.extend_from_slice(b"-1"),
            Cell::Flag(true) => self.text.extend_from_slice(b"true"),
            Cell::Flag(false) => self.text.extend_from_slice(b"false"),
            Cell::Number(number) => self.number(number),
            Cell::Ms(us) => {
                self.number(us / 1_000);
                let mut rest = us % 1_000;
                let mut digit = 100;
                if rest > 0 {
                    self.text.push(b'.');
                }
                while rest > 0 {
                    self.text.push(b'0' + (rest / digit) as u8);
                    rest %= digit;
                    digit /= 10;
                }
            }
            Cell::Text(text) => serde_json::to_writer(&mut self.text, text)?,
            Cell::Raw(text) => self.text.extend_from_slice(text.as_bytes()),
            Cell::OfType(name) => {
                self.text.extend_from_slice(b"{\"type\":");
                serde_json::to_writer(&mut self.text, name)?;
                self.text.push(b'}');
            }
        }
        Ok(())
    }

    fn number(&mut self, number: u64) {
        self.text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn pass_on(&mut self, least: usize) -> io::Result<()> {
        if self.text.len() >= least {
            self.out.write_all(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(write: impl FnOnce(&mut Json<'_>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        write(&mut json).unwrap();
        json.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_cell() {
        let times = [0, 1, 10, 100, 1_000, 1_001, 2_030, 123_400].map(Cell::Ms);
        let text = written(|json| json.array(times).map(drop));
        assert_eq!(text, "[0,0.001,0.01,0.1,1,1.001,2.03,123.4]");
        let others = [
            Cell::Null,
            Cell::Nothing,
            Cell::Flag(true),
            Cell::Flag(false),
            Cell::Number(u64::MAX),
            Cell::Text("a\"\n\u{2028}"),
            Cell::OfType("GIL"),
        ];
        let text = written(|json| json.array(others).map(drop));
        let value: Value = serde_json::from_str(&text).unwrap();
        let expected = json!([null, -1, true, false, u64::MAX, "a\"\n\u{2028}", {"type": "GIL"}]);
        assert_eq!(value, expected);
    }

    #[test]
    fn tables_longer_than_the_buffer() {
        let text = written(|json| {
            let mut numbers = (0..100_000).map(Cell::Number);
            let mut flags = (0..100_000).map(|number| Cell::Flag(number % 2 == 0));
            json.table("[{\"name\":1", &mut [("a", &mut numbers), ("b", &mut flags)])?;
            json.table(",{", &mut [("c", &mut std::iter::empty())])?;
            json.raw("]")
        });
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value[1], json!({"c": [], "length": 0}));
        let value = &value[0];
        assert_eq!((&value["name"], &value["length"]), (&json!(1), &json!(100_000)));
        assert_eq!((&value["a"][99_999], &value["b"][99_999]), (&json!(99_999), &json!(false)));
    }
}
