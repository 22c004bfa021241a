//! Looks into the ledger for people and metrics: one read at a time, so that nobody can load the ledger by looking, and within a time
//! limit, so that nobody hangs with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Mutex;

use jiff::Timestamp;

use super::{Census, Finished, Lookup, Missing, Place, Reader};

/// How long whoever looks waits for the ledger, and for others that look into it.
const LIMIT: Duration = Duration::from_secs(2);

/// The way to the ledger.
pub struct Recall {
    place: Place,
    /// A connection is kept; a file is opened each time, so that one that was put in its place is noticed.
    reader: Arc<Mutex<Option<Reader>>>,
}

/// Something that somebody wants to know.
trait Question: Send + 'static {
    type Answer: Send + 'static;
    async fn ask(self, reader: &Reader) -> Result<Self::Answer, String>;
}

/// How much is unfinished, and so many of the latest outcomes.
struct Overview {
    outcomes: usize,
}

/// How far a command has come.
struct LookUp {
    command_id: String,
}

/// How much is unfinished.
struct Count;

/// What is unfinished and was not seen since then, so many at most.
struct Unseen {
    since: Timestamp,
    most: usize,
}

impl Question for Overview {
    type Answer = (Census, Vec<Finished>);

    async fn ask(self, reader: &Reader) -> Result<Self::Answer, String> {
        let census = reader.census().await.map_err(|error| error.to_string())?;
        let latest = reader.latest(self.outcomes).await.map_err(|error| error.to_string())?;
        Ok((census, latest))
    }
}

impl Question for LookUp {
    type Answer = Lookup;

    async fn ask(self, reader: &Reader) -> Result<Self::Answer, String> {
        reader.find(&self.command_id).await.map_err(|error| error.to_string())
    }
}

impl Question for Count {
    type Answer = Census;

    async fn ask(self, reader: &Reader) -> Result<Self::Answer, String> {
        reader.census().await.map_err(|error| error.to_string())
    }
}

impl Question for Unseen {
    type Answer = Vec<Missing>;

    async fn ask(self, reader: &Reader) -> Result<Self::Answer, String> {
        reader.missing(self.since, self.most).await.map_err(|error| error.to_string())
    }
}

impl Recall {
    /// Nothing is opened yet.
    pub fn new(place: Place) -> Self {
        Self { place, reader: Arc::default() }
    }

    /// How much is unfinished, and so many of the latest outcomes; or in a sentence why nobody knows.
    ///
    /// # Errors
    /// That sentence.
    pub async fn overview(&self, outcomes: usize) -> Result<(Census, Vec<Finished>), String> {
        self.ask(Overview { outcomes }).await
    }

    /// How much is unfinished, and how large the ledger is; or in a sentence why nobody knows.
    ///
    /// # Errors
    /// That sentence.
    pub async fn census(&self) -> Result<Census, String> {
        self.ask(Count).await
    }

    /// Accepted commands whose messages were not seen since then, so many at most; or in a sentence why nobody knows.
    ///
    /// # Errors
    /// That sentence.
    pub async fn missing(&self, since: Timestamp, most: usize) -> Result<Vec<Missing>, String> {
        self.ask(Unseen { since, most }).await
    }

    /// How far a command has come; or in a sentence why nobody knows.
    ///
    /// # Errors
    /// That sentence.
    pub async fn find(&self, command_id: String) -> Result<Lookup, String> {
        self.ask(LookUp { command_id }).await
    }

    async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Answer, String> {
        let silent = || format!("The ledger has not answered within {} seconds.", LIMIT.as_secs());
        let asking = async {
            let mut kept = Arc::clone(&self.reader).lock_owned().await;
            let place = self.place.clone();
            // SQLite blocks the thread that asks it. What has taken too long holds its place until it ends.
            let asked = tokio::task::spawn_blocking(move || {
                Handle::current().block_on(async {
                    let reader = kept.take();
                    match tokio::time::timeout(LIMIT, ask(&place, reader, question)).await {
                        Ok(Ok((reader, answer))) => {
                            *kept = Some(reader).filter(|_| place.is_shared());
                            Ok(answer)
                        }
                        Ok(Err(trouble)) => Err(trouble),
                        Err(_) => Err(silent()),
                    }
                })
            });
            asked.await.unwrap_or_else(|error| Err(format!("The ledger could not be read: {error}.")))
        };
        tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| Err(silent()))
    }
}

async fn ask<Q: Question>(place: &Place, kept: Option<Reader>, question: Q) -> Result<(Reader, Q::Answer), String> {
    let reader = match kept {
        Some(reader) => reader,
        None => Reader::open(place).await.map_err(|error| error.to_string())?,
    };
    let answer = question.ask(&reader).await?;
    Ok((reader, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_ledger_that_is_not_there_is_told_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let recall = Recall::new(Place::Sqlite(folder.path().join("ledger.db")));
        let trouble = recall.overview(1).await.unwrap_err();
        assert!(trouble.contains("ledger.db can't be used"), "{trouble}");
        assert!(recall.find("c1".to_owned()).await.is_err());
        assert!(!folder.path().join("ledger.db").exists(), "reading makes no ledger");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_database_that_says_nothing_holds_up_no_page_for_longer_than_the_limit() {
        // It takes connections and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://kf@{}/kf?sslmode=disable", silent.local_addr().unwrap());
        let recall = Recall::new(Place::parse(&url).unwrap());
        let begun = std::time::Instant::now();
        let (first, second) = tokio::join!(recall.overview(1), recall.find("c1".to_owned()));
        assert!(first.unwrap_err().contains("within 2 seconds") && second.unwrap_err().contains("within 2 seconds"));
        assert!(begun.elapsed() < LIMIT * 2, "they wait side by side: {:?}", begun.elapsed());
    }
}
