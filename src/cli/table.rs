//! Tables for people: no lines but the one below the head.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width};

/// A table without lines but the one below its head; columns are right-aligned but the first and these.
pub(super) fn table(head: &[&str], left: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_preset("     ──            ").set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().copied());
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((u16::from(index > 0), 1));
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(4)));
        if index > 0 && !left.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table without blanks at its line ends.
pub(super) fn trimmed(table: &Table) -> String {
    let lines = table.to_string();
    lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
