package main

// rows are the lines of the table, in its order. The bounds are the figures
// that holdfast promises.
func rows() []row {
	rows := localRows()
	rows = append(rows, withoutPassthroughRows()...)
	rows = append(rows, importRows()...)
	rows = append(rows, networkRows()...)
	rows = append(rows, protectRows()...)
	rows = append(rows, encodeRows()...)
	rows = append(rows, uploadRows()...)
	rows = append(rows, treeRows()...)
	return append(rows, idleRow(), memoryRow())
}

// memoryRow comes last: it looks back on all rows before it.
func memoryRow() row {
	return row{
		name: "memory: peak RssAnon of a node",
		unit: unitBytes,
		goal: goal{withinMiB, 400},
		ours: func(b *bench) sample {
			most := b.watch.most()
			if most.node == "" {
				b.Fatalf("no other row ran, so no node did")
			}
			return sample{work: float64(most.bytes)}
		},
		note: func(b *bench) string {
			most := b.watch.most()
			return most.node + " in " + most.row
		},
	}
}
