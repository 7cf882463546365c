//! What a node is for: its role in the training step, its component, and how it is to multiply.

use std::fmt;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Every value, in the order of the declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The word in metadata, policies and reports.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The inverse of `name`.
            pub fn from_name(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|v| v.name() == name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

words! {
    /// The part of the training step that a node belongs to.
    Role {
        /// Computes the model's outputs.
        Forward = "forward",
        /// Computes the loss from the model's outputs.
        Loss = "loss",
        /// Computes gradients.
        Backward = "backward",
        /// Computes new parameters and optimizer state.
        Optimizer = "optimizer",
        /// Feeds only outputs that are neither loss nor state.
        Metric = "metric",
    }
}

words! {
    /// The unit a derivative policy addresses (the columns of the paper's Table 3).
    Component {
        /// Matrix products and convolutions.
        MatMul = "matmul",
        /// Softmax outside the loss.
        Softmax = "softmax",
        /// Layer, batch, group, instance and RMS normalisation.
        Norm = "norm",
        /// Activation functions.
        Activation = "activation",
        /// The loss.
        Loss = "loss",
        /// The optimizer.
        Optimizer = "optimizer",
        /// Everything else.
        Other = "other",
    }
}

words! {
    /// How a component multiplies, and with which derivative.
    Mode {
        /// With the hardware's multiplications.
        Native = "native",
        /// Piecewise affine, with the textbook derivative in piecewise affine arithmetic.
        Approx = "approx",
        /// Piecewise affine, with the derivative of the piecewise affine function.
        Exact = "exact",
    }
}
