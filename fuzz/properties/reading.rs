//! Inputs that people can read and write: lines, an empty line, and what stands below.

use crate::command::Message;

/// An input's lines above its first empty line, and what stands below it.
pub fn head_and_body(input: &[u8]) -> Option<(&str, &[u8])> {
    let (head, body) = match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &b""[..]),
    };
    Some((std::str::from_utf8(head).ok()?, body))
}

/// A message whose properties and headers are the lines of the head, each `name: value`.
pub fn message(input: &[u8]) -> Option<Message> {
    let (head, body) = head_and_body(input)?;
    let mut message = Message { body: body.to_vec(), ..Message::default() };
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        let text = Some(value.to_owned());
        match name {
            "content_type" => message.content_type = text,
            "message_id" => message.message_id = text,
            "user_id" => message.user_id = text,
            "timestamp" => message.timestamp = value.parse().ok(),
            _ => drop(message.headers.insert(name.to_owned(), value.to_owned())),
        }
    }
    Some(message)
}

/// A text is a short line for people: nothing in it moves a cursor or begins another line.
pub fn assert_line(text: &str) {
    assert!(!text.is_empty() && text.len() < 400 && !text.chars().any(char::is_control), "{text:?}");
}
