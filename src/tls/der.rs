//! As much of DER (X.690) as it takes to find a field in a certificate that is known to be one.

/// The tags that occur on the way.
pub(super) mod tag {
    pub(in crate::tls) const INTEGER: u8 = 0x02;
    pub(in crate::tls) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(in crate::tls) const UTF8_STRING: u8 = 0x0c;
    pub(in crate::tls) const PRINTABLE_STRING: u8 = 0x13;
    pub(in crate::tls) const IA5_STRING: u8 = 0x16;
    pub(in crate::tls) const UTC_TIME: u8 = 0x17;
    pub(in crate::tls) const GENERALIZED_TIME: u8 = 0x18;
    pub(in crate::tls) const SEQUENCE: u8 = 0x30;
    pub(in crate::tls) const SET: u8 = 0x31;
    /// `[0]`, constructed.
    pub(in crate::tls) const CONTEXT_0: u8 = 0xa0;
}

/// Elements that stand one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) contents: &'a [u8],
    /// Tag, length and contents.
    pub(super) whole: &'a [u8],
}

impl<'a> Der<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next element.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element; `None` at the end, and when there is something else.
    pub(super) fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Tags above 30 take more bytes; certificates have none.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Element { tag, contents, whole })
    }

    /// The contents of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let element = self.next()?;
        (element.tag == tag).then_some(element.contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_one_by_one() {
        let mut der = Der::new(&[0x02, 1, 7, 0x0c, 0x81, 2, b'h', b'i', 0x30, 0]);
        assert_eq!(der.expect(tag::INTEGER), Some(&[7][..]));
        let text = der.next().unwrap();
        assert_eq!((text.contents, text.whole.len()), (&b"hi"[..], 5));
        assert_eq!(der.expect(tag::SEQUENCE), Some(&[][..]));
        assert!(der.is_empty() && der.next().is_none());
    }

    #[test]
    fn what_is_cut_short_or_has_no_definite_length_is_nothing() {
        for bytes in
            [&[0x02][..], &[0x02, 2, 7], &[0x02, 0x82, 1], &[0x30, 0x80, 0, 0], &[0x1f, 0x81, 1, 0], &[0x02, 0x85]]
        {
            assert_eq!(Der::new(bytes).next(), None, "{bytes:?}");
        }
    }
}
