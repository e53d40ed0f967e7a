//! Commands on the wire: an array of byte strings, encoded as it is written.

/// One command, ready to be sent. It may hold a password, so it cannot be printed.
pub struct Command(Vec<u8>);

impl Command {
    /// The beginning of a command of this many words; about `bytes` are to come.
    #[must_use]
    pub fn with_words(words: usize, bytes: usize) -> Self {
        let mut command = Self(Vec::with_capacity(bytes + 16 * words));
        command.push_line(b'*', words);
        command
    }

    /// A command of these words.
    #[must_use]
    pub fn of(words: &[&str]) -> Self {
        let mut command = Self::with_words(words.len(), words.iter().map(|word| word.len()).sum());
        for word in words {
            command.word(&[word.as_bytes()]);
        }
        command
    }

    /// Adds a word that is given in pieces.
    pub fn word(&mut self, pieces: &[&[u8]]) {
        self.push_line(b'$', pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            self.0.extend_from_slice(piece);
        }
        self.0.extend_from_slice(b"\r\n");
    }

    /// Adds a number.
    pub fn number(&mut self, number: impl itoa::Integer) {
        self.word(&[itoa::Buffer::new().format(number).as_bytes()]);
    }

    /// What is sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn push_line(&mut self, mark: u8, number: usize) {
        self.0.push(mark);
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        self.0.extend_from_slice(b"\r\n");
    }
}
