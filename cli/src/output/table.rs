//! Tables for people: no borders, so that a line can be cut with the usual tools. Widths are the content's; nothing is
//! wrapped.

use anstyle::Style;

use super::plain;

/// Rows under a header.
pub(crate) struct Table {
    inner: comfy_table::Table,
}

impl Table {
    /// A table with these column names.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner
            .load_style(comfy_table::presets::NOTHING)
            .set_content_arrangement(comfy_table::ContentArrangement::Disabled)
            .set_header(header.map(str::to_uppercase));
        for column in inner.column_iter_mut() {
            column.set_padding((0, 3));
        }
        Self { inner }
    }

    /// Adds a row of as many cells as the header has. What is in them is often what others say of themselves.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // An empty cell would shift what `awk` counts.
        self.inner
            .add_row(cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(&cell) }));
    }

    /// The text, the header in bold.
    pub(crate) fn render(&self) -> String {
        let bold = Style::new().bold();
        self.inner
            .lines()
            .enumerate()
            .map(|(number, line)| match number {
                0 => format!("{bold}{}{bold:#}\n", line.trim_end()),
                _ => format!("{}\n", line.trim_end()),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_and_empty_cells_are_marked() {
        let mut table = Table::new(["service", "zone"]);
        table.row(["ticket-svc".to_owned(), String::new()]);
        table.row(["user".to_owned(), "a".to_owned()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "SERVICE      ZONE\nticket-svc   -\nuser         a\n");
    }

    /// Whoever can register an instance could write to the terminal of whoever lists them.
    #[test]
    fn a_cell_neither_steers_the_terminal_nor_makes_a_row() {
        let mut table = Table::new(["id"]);
        table.row(["a\u{1b}[2J\nb".to_owned()]);
        assert!(table.render().ends_with("\na b\n"), "{:?}", table.render());
    }
}
