package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// maxShape bounds a shape, in bytes.
const maxShape = 400

// Shape is what the plan does, without costs, numbers of rows, conditions and values: "Hash Join(Seq Scan orders, Index Scan
// users users_pkey)". Equal shapes mean the same way to the rows. Under an Append, partitions that are read alike are
// told once and numbers in their names as #, so that a new month is no new plan. A shape above 400 bytes ends in a
// hash of the whole. "" = there is no plan.
func (p *Plan) Shape() string {
	if p == nil || p.Root == nil {
		return ""
	}
	text := shapeOf(p.Root, false)
	if len(text) <= maxShape {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return strings.ToValidUTF8(text[:maxShape-18], "") + "… " + hex.EncodeToString(sum[:6])
}

func shapeOf(n *Node, partition bool) string {
	parts := []string{n.Join, n.Type, n.Op, n.Relation, n.Index}
	if n.Backward {
		parts = append(parts, "backward")
	}
	self := strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
	if partition {
		self = withoutNumbers(self)
	}
	parted := n.Type == "Append" || n.Type == "Merge Append"
	var under []string
	for _, c := range n.Children {
		if s := shapeOf(c, partition || parted); !parted || !slices.Contains(under, s) {
			under = append(under, s)
		}
	}
	if len(under) == 0 {
		return self
	}
	return self + "(" + strings.Join(under, ", ") + ")"
}

// withoutNumbers writes each run of digits as #.
func withoutNumbers(s string) string {
	var b strings.Builder
	last := rune(0)
	for _, c := range s {
		if c >= '0' && c <= '9' {
			c = '#'
		}
		if c != '#' || last != '#' {
			b.WriteRune(c)
		}
		last = c
	}
	return b.String()
}
