//! The picture of a run: what the worker held and how it fared over time, with the broker's deaths in every panel.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use crate::sample::Sample;

const WIDTH: u32 = 860;
const PANEL: u32 = 150;
/// Room for the head above and the title of the time axis below.
const HEAD: u32 = 34;
const FOOT: u32 = 26;
const FONT: &str = "sans-serif";
/// A ground of its own, so that it is legible on dark pages as well.
const GROUND: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(40, 44, 52);
const GRID: RGBColor = RGBColor(228, 230, 235);
const DEATH: RGBColor = RGBColor(200, 200, 206);
/// Told apart also by those who don't see red or green.
const FIRST: RGBColor = RGBColor(0, 90, 181);
const SECOND: RGBColor = RGBColor(220, 98, 20);

type Value = fn(&Sample) -> Option<f64>;

/// One line and what it is called.
struct Line {
    name: &'static str,
    value: Value,
}

/// One panel; its axis begins at zero unless it is a time, which spans orders of magnitude.
struct Panel {
    title: &'static str,
    lines: &'static [Line],
    is_time: bool,
}

const PANELS: [Panel; 6] = [
    Panel { title: "outcomes / s", lines: &[Line { name: "", value: |sample| Some(sample.outcomes_per_second) }], is_time: false },
    Panel { title: "memory / MiB", lines: &[Line { name: "resident", value: |sample| Some(sample.resident_mib) }], is_time: false },
    Panel { title: "ledger / MiB", lines: &[Line { name: "file and log", value: |sample| Some(sample.ledger_mib) }], is_time: false },
    Panel {
        title: "open at once",
        lines: &[
            Line { name: "file descriptors", value: |sample| Some(sample.file_descriptors.into()) },
            Line { name: "threads", value: |sample| Some(sample.threads.into()) },
        ],
        is_time: false,
    },
    Panel {
        title: "latency / s",
        lines: &[Line { name: "p99", value: |sample| sample.p99_seconds }, Line { name: "p50", value: |sample| sample.p50_seconds }],
        is_time: true,
    },
    Panel {
        title: "messages",
        lines: &[
            Line { name: "waiting in queues", value: |sample| sample.waiting.map(f64::from) },
            Line { name: "held by the worker", value: |sample| Some(sample.held.into()) },
        ],
        is_time: false,
    },
];

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a run.
pub fn draw(samples: &[Sample], path: &Path) {
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder can be made");
    draw_all(samples, path).expect("the picture can be drawn");
    println!("soak: picture in {}", path.display());
}

fn draw_all(samples: &[Sample], path: &Path) -> Drawn {
    let height = HEAD + PANEL * PANELS.len() as u32 + FOOT;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&GROUND)?;
    let (head, below) = root.split_vertically(HEAD);
    let minutes = samples.last().map_or(1.0, |sample| sample.minutes);
    let title = format!("One worker over {minutes:.0} minutes of faults; grey lines: the broker was killed");
    head.draw(&Text::new(title, (16, 12), (FONT, 15).into_font().color(&INK)))?;
    let (panels, foot) = below.split_vertically(PANEL * PANELS.len() as u32);
    for (area, panel) in panels.split_evenly((PANELS.len(), 1)).iter().zip(&PANELS) {
        match panel.is_time {
            true => draw_panel(area, panel, samples, minutes, (0.001..100.0).log_scale(), 0.001)?,
            false => draw_panel(area, panel, samples, minutes, 0.0..highest(panel, samples) * 1.25, 0.0)?,
        }
    }
    let middle = (WIDTH as i32 / 2 - 30, 4);
    foot.draw(&Text::new("time / min", middle, (FONT, 13).into_font().color(&INK)))?;
    root.present()?;
    Ok(())
}

fn highest(panel: &Panel, samples: &[Sample]) -> f64 {
    let values = panel.lines.iter().flat_map(|line| samples.iter().filter_map(line.value));
    values.fold(1.0, f64::max)
}

fn draw_panel<Y>(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel, samples: &[Sample], minutes: f64, scale: Y, lowest: f64) -> Drawn
where
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(16)
        .x_label_area_size(20)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..minutes, scale)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(GROUND)
        .axis_style(INK)
        .y_desc(panel.title)
        .axis_desc_style((FONT, 13).into_font().color(&INK))
        .label_style((FONT, 12).into_font().color(&INK))
        .x_labels(13)
        .y_labels(5)
        .x_label_formatter(&|minute| format!("{minute:.0}"))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    let top = if panel.is_time { 100.0 } else { highest(panel, samples) * 1.25 };
    let deaths = samples.windows(2).filter(|pair| pair[1].broker_kills > pair[0].broker_kills).map(|pair| pair[1].minutes);
    chart.draw_series(deaths.map(|minute| PathElement::new([(minute, lowest), (minute, top)], DEATH)))?;
    for (line, colour) in panel.lines.iter().zip([FIRST, SECOND]) {
        let points = samples.iter().filter_map(|sample| Some((sample.minutes, (line.value)(sample)?.max(lowest))));
        let drawn = chart.draw_series(LineSeries::new(points, colour.stroke_width(1)))?;
        if !line.name.is_empty() {
            drawn.label(line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
        }
    }
    if panel.lines.iter().any(|line| !line.name.is_empty()) {
        let ground = GROUND.mix(0.8);
        let labels = (FONT, 12).into_font().color(&INK);
        chart.configure_series_labels().position(SeriesLabelPosition::UpperRight).background_style(ground).label_font(labels).draw()?;
    }
    Ok(())
}

/// As few digits as tell the values of an axis apart.
fn short(value: f64) -> String {
    let digits = if value == 0.0 || value >= 1.0 { 0 } else { (-value.log10()).ceil() as usize };
    format!("{value:.digits$}")
}
