//go:build !linux

package bench

import (
	"errors"
	"time"
)

const canReadNoise = false

func othersCPU(int) (time.Duration, error) { return 0, errors.ErrUnsupported }

func parentOfServer(int) (int, bool) { return 0, false }

func resetPeakRSS() {}

func peakRSS() float64 { return 0 }
