//! Names of files: what is in them, and which file it is.

/// What a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::balancing) enum Format {
    /// CSV, whose first record names columns.
    Csv,
    /// A JSON object a line.
    JsonLines,
}

/// Which file it is, whatever it is called and whoever has it: given with its first claim, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::balancing) struct ItemId {
    /// When it was claimed first, in seconds since 1970.
    pub(in crate::balancing) claimed_at: i64,
    /// By lot.
    pub(in crate::balancing) draw: u64,
}

impl std::fmt::Display for ItemId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{:016x}", self.claimed_at, self.draw)
    }
}

impl ItemId {
    fn parse(text: &str) -> Option<Self> {
        let (claimed_at, draw) = text.split_once('-')?;
        let id = Self {
            claimed_at: claimed_at.parse().ok()?,
            draw: u64::from_str_radix(draw, 16).ok()?,
        };
        // One name an identity.
        (id.to_string() == text).then_some(id)
    }
}

/// `TABLE.csv`, `NAME.TABLE.csv` or the same with `.jsonl`; once it was claimed, with `.ID` behind it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::balancing) struct ItemName {
    /// None: nobody has claimed it yet. First, so that the oldest come first.
    pub(in crate::balancing) id: Option<ItemId>,
    /// As it was dropped.
    pub(in crate::balancing) dropped: String,
    /// The table, exactly as it is called.
    pub(in crate::balancing) table: String,
    /// What is in it.
    pub(in crate::balancing) format: Format,
}

impl ItemName {
    /// None: the file is not for the spool, or not whole yet.
    pub(in crate::balancing) fn parse(name: &str) -> Option<Self> {
        if let Some((dropped, id)) = name.rsplit_once('.')
            && let Some(id) = ItemId::parse(id)
        {
            let id = Some(id);
            return Self::dropped(dropped).map(|item| Self { id, ..item });
        }
        Self::dropped(name)
    }

    fn dropped(name: &str) -> Option<Self> {
        if name.starts_with('.') {
            return None;
        }
        let (rest, extension) = name.rsplit_once('.')?;
        let format = match extension {
            "csv" => Format::Csv,
            "jsonl" => Format::JsonLines,
            _ => return None,
        };
        let table = rest.rsplit_once('.').map_or(rest, |(_, table)| table);
        (!table.is_empty()).then(|| Self {
            id: None,
            dropped: name.to_owned(),
            table: table.to_owned(),
            format,
        })
    }

    /// The file's name.
    pub(in crate::balancing) fn full(&self) -> String {
        match self.id {
            None => self.dropped.clone(),
            Some(id) => format!("{}.{id}", self.dropped),
        }
    }

    /// The same with an identity: its own, if it has one.
    pub(in crate::balancing) fn identified(&self, new: ItemId) -> Self {
        Self {
            id: Some(self.id.unwrap_or(new)),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_table_and_lead_back() {
        let item = ItemName::parse("monday.orders.csv").unwrap();
        assert_eq!(
            (item.table.as_str(), item.format, item.id),
            ("orders", Format::Csv, None)
        );
        let id = ItemId {
            claimed_at: 1_795_902_045,
            draw: 0x5f,
        };
        let claimed = item.identified(id);
        assert_eq!(claimed.full(), "monday.orders.csv.1795902045-000000000000005f");
        assert_eq!(ItemName::parse(&claimed.full()), Some(claimed.clone()));
        let other = ItemId { draw: 7, ..id };
        assert_eq!(claimed.identified(other), claimed, "its identity is for good");
        let plain = ItemName::parse("orders.jsonl").unwrap();
        assert_eq!((plain.table.as_str(), plain.format), ("orders", Format::JsonLines));
        assert_eq!(ItemName::parse("a.b.C d.csv").unwrap().table, "C d");
    }

    #[test]
    fn others_are_left_alone() {
        for name in [
            "",
            "orders",
            "orders.csv.part",
            ".orders.csv",
            ".csv",
            "monday..csv",
            "orders.CSV",
            "orders.csv.1795902045-5f",
            "orders.csv.unfinished",
            "orders.txt.1795902045-000000000000005f",
        ] {
            assert_eq!(ItemName::parse(name), None, "{name}");
        }
    }
}
