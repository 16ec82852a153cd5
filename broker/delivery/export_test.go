package delivery

// Kill ends the host as kill -9 would: nothing that is only in memory is written.
func (h *Host) Kill() error {
	h.killed.Store(true)
	return h.Close()
}
