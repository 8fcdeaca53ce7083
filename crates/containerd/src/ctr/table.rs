//! Columns padded with spaces, as Go's `tabwriter` does: each as wide as its longest cell plus the padding, but at
//! least so wide; the last column is not padded.

/// Lays out rows of equally many cells.
pub(crate) fn lay_out(rows: &[Vec<String>], least_width: usize, padding: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let longest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            least_width.max(longest + padding)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < columns {
                text.extend(std::iter::repeat_n(' ', widths[column] - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_go_makes_them() {
        let rows = [vec!["ID".to_owned(), "PATH".to_owned()], vec!["a".repeat(18), "/x".to_owned()]];
        let text = lay_out(&rows, 20, 3);
        assert_eq!(text, format!("ID{}PATH\n{}   /x\n", " ".repeat(19), "a".repeat(18)));
        assert_eq!(lay_out(&[vec!["ID".into(), "P".into()]], 20, 3), format!("ID{}P\n", " ".repeat(18)));
    }
}
