//! Aligned columns.

use std::io::{self, Write};

/// Side on which a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table that is printed once it is complete.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row.
    ///
    /// Panics: unless it has a text for each column.
    pub(crate) fn row(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.columns.len(), "one text a column");
        self.rows.push(row);
    }

    pub(crate) fn print(&self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        let width = |index: usize| {
            let texts = self.rows.iter().map(|row| row[index].chars().count());
            texts
                .chain([self.columns[index].0.len()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let titles = self
            .columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = indent.to_owned();
            for (index, text) in row.iter().enumerate() {
                let (_, side) = self.columns[index];
                let width = widths[index];
                line += &match side {
                    Side::Left => format!("{text:<width$}"),
                    Side::Right => format!("{text:>width$}"),
                };
                line += "  ";
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
