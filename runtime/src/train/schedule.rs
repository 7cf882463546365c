//! Learning-rate schedules.

/// The course after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The peak throughout.
    #[default]
    Constant,
    /// Half a cosine, from the peak down to zero at the last step.
    Cosine,
}

impl Shape {
    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Shape::Constant => "constant",
            Shape::Cosine => "cosine",
        }
    }

    /// The inverse of [`Shape::name`].
    pub fn from_name(name: &str) -> Option<Shape> {
        [Shape::Constant, Shape::Cosine].into_iter().find(|s| s.name() == name)
    }
}

/// A warm-up followed by a course.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The course.
    pub shape: Shape,
    /// Steps of linear warm-up: step i of them runs at (i + 1) / warm-up of the course. If not
    /// given: none for constant, a tenth of all steps for cosine.
    pub warmup: Option<usize>,
}

impl Schedule {
    /// The share of the peak at a step, counted from 0, of so many in all.
    pub fn factor(&self, step: usize, total: usize) -> f64 {
        let warmup = self.warmup.unwrap_or(match self.shape {
            Shape::Constant => 0,
            Shape::Cosine => (total / 10).max(1),
        });
        let course = match self.shape {
            Shape::Constant => 1.0,
            Shape::Cosine => {
                let after = step.saturating_sub(warmup) as f64;
                let length = total.saturating_sub(warmup).max(1) as f64;
                0.5 * (1.0 + (std::f64::consts::PI * (after / length).min(1.0)).cos())
            }
        };
        if step < warmup { course * (step + 1) as f64 / warmup as f64 } else { course }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn courses() {
        let constant = Schedule { shape: Shape::Constant, warmup: Some(4) };
        assert_eq!([0, 1, 3, 4, 99].map(|i| constant.factor(i, 100)), [0.25, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!(Schedule::default().factor(0, 100), 1.0);
        let cosine = Schedule { shape: Shape::Cosine, warmup: None };
        assert_eq!(cosine.factor(0, 100), 0.1);
        assert_eq!(cosine.factor(10, 100), 1.0);
        assert!((cosine.factor(55, 100) - 0.5).abs() < 1e-12);
        assert!(cosine.factor(99, 100) < 1e-3);
        assert_eq!(cosine.factor(0, 0), 1.0);
    }
}
