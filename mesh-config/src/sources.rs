//! The files that one mesh is written in: their names, as messages show them, and their texts.

/// All files, the one that was named first.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    files: Vec<(String, String)>,
}

impl Sources {
    /// A single file.
    pub fn one(name: &str, text: &str) -> Self {
        let mut sources = Self::default();
        sources.add(name.to_owned(), text.to_owned());
        sources
    }

    /// One more; its number, by which places name it.
    pub fn add(&mut self, name: String, text: String) -> u32 {
        let number = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        self.files.push((name, text));
        number
    }

    /// Takes the last one out again.
    pub fn forget_last(&mut self) {
        self.files.pop();
    }

    /// The name of a file, or nothing where there is none.
    pub fn name(&self, file: u32) -> &str {
        self.get(file).map_or("", |(name, _)| name)
    }

    /// The text of a file, or nothing where there is none.
    pub fn text(&self, file: u32) -> &str {
        self.get(file).map_or("", |(_, text)| text)
    }

    /// All names, in the order of their numbers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// All texts, in the order of their numbers.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(_, text)| text.as_str())
    }

    fn get(&self, file: u32) -> Option<&(String, String)> {
        self.files.get(usize::try_from(file).ok()?)
    }
}
