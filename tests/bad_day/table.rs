//! Tables of figures, for people.

/// Prints a table: a title, a line of heads, then the rows; the first column to the left, the others to the right.
pub fn print(title: &str, heads: &[&str], rows: &[Vec<String>]) {
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heads).chain(rows).collect();
    let widths: Vec<usize> =
        (0..heads.len()).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    println!("\n{title}");
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("  {cell:<width$}"),
            _ => format!("  {cell:>width$}"),
        });
        println!("{}", cells.collect::<String>().trim_end());
    }
}
